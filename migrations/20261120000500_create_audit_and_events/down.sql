DROP TABLE events, audit_entries, idempotency_keys;
DROP SEQUENCE event_numbers, audit_entry_numbers;
