-- Returns a target's epoch, or no row when its table has been made anew, or another declaration has landed in it, since.
-- Uses landing_target_pkey.
SELECT epoch FROM collect.landing_target
WHERE
    table_name = %(table_name)s AND version = %(version)s
    AND table_oid = to_regclass(format('landing.%%I', %(table_name)s::text))::oid
