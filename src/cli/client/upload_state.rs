//! State files of resumable uploads, so that the same command can resume an upload after it was stopped.
//!
//! Each upload has a small file in the user's state directory. Its name is a digest of what identifies the
//! upload: the server, the file's path, size and modification time, and the upload spec. Its content is the
//! id of the upload, which is useless without the caller's token.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use prost::Message as _;

use crate::{domain::digest::Hasher, proto::v1::UploadSpec};

/// The state file of one upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UploadStateFile(PathBuf);

impl UploadStateFile {
    /// Returns the state file for uploading the current content of `path` to `server`, or `None` if the user
    /// has no state directory.
    pub(super) fn locate(server: &str, path: &Path, spec: &UploadSpec) -> io::Result<Option<Self>> {
        state_directory().map(|directory| Self::locate_in(&directory, server, path, spec)).transpose()
    }

    fn locate_in(directory: &Path, server: &str, path: &Path, spec: &UploadSpec) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let metadata = fs::metadata(&path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut hasher = Hasher::default();
        for field in [
            server.as_bytes(),
            path.as_os_str().as_encoded_bytes(),
            &metadata.len().to_be_bytes(),
            &modified.as_nanos().to_be_bytes(),
            &spec.encode_to_vec(),
        ] {
            hasher.field(field);
        }
        Ok(Self(directory.join(hasher.finish().to_string())))
    }

    pub(super) fn read_upload_id(&self) -> Option<String> {
        let id = fs::read_to_string(&self.0).ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }

    pub(super) fn write_upload_id(&self, upload_id: &str) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&self.0, format!("{upload_id}\n"))
    }

    /// Deletes the state file. Succeeds if it does not exist.
    pub(super) fn delete(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Returns the directory for state files, as the XDG Base Directory Specification defines it.
fn state_directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("strongroom").join("uploads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_file_depends_on_server_file_and_spec() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.bin");
        fs::write(&file, "abc").unwrap();
        let spec = UploadSpec { name: "a.bin".into(), ..UploadSpec::default() };
        let locate = |server: &str, spec: &UploadSpec| {
            UploadStateFile::locate_in(directory.path(), server, &file, spec).unwrap()
        };
        let state_file = locate("https://a", &spec);
        assert_eq!(state_file, locate("https://a", &spec));
        assert_ne!(state_file, locate("https://b", &spec));
        assert_ne!(state_file, locate("https://a", &UploadSpec { title: "t".into(), ..spec.clone() }));

        assert_eq!(state_file.read_upload_id(), None);
        state_file.write_upload_id("id").unwrap();
        assert_eq!(locate("https://a", &spec).read_upload_id().as_deref(), Some("id"));
        fs::write(&file, "abcd").unwrap();
        assert_eq!(locate("https://a", &spec).read_upload_id(), None, "the file has changed");
        state_file.delete().unwrap();
        state_file.delete().unwrap();
    }
}
