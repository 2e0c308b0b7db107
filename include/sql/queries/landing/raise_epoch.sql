-- Begins a target's next epoch whatever it was. Uses landing_target_pkey.
UPDATE collect.landing_target SET epoch = epoch + 1 WHERE table_name = %(table_name)s
