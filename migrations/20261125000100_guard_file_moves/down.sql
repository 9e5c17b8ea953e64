DROP TRIGGER file_moves ON files;
DROP TRIGGER content_moves ON files;
DROP TRIGGER content_moves ON versions;
DROP FUNCTION app.guard_file_move();
DROP FUNCTION app.guard_content_move();
