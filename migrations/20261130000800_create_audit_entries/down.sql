DROP TABLE audit_entries;
DROP SEQUENCE audit_entry_numbers;
