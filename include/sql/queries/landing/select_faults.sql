-- Template: {faults}. Returns what cast_rows could not cast, in the order of the page.
SELECT _ordinal AS ordinal, column_name, message FROM {faults} ORDER BY _ordinal
