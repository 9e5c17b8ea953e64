DROP TABLE tombstones, attachments, file_tags, versions, file_readers, files, blobs;
