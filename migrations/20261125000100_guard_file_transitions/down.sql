DROP TRIGGER file_transition ON files;
DROP TRIGGER content_transition ON files;
DROP TRIGGER content_transition ON versions;
DROP FUNCTION app.guard_file_transition();
DROP FUNCTION app.guard_content_transition();
