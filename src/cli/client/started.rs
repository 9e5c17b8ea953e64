//! Uploads that were started, remembered on disk so that the same command goes on with them after it was stopped.
//!
//! One small file an upload, below the user's state directory; its name is a digest of what makes the upload the same one:
//! the server, the file with its size and time, and everything said about it. It holds the id of the upload, which is of no
//! use without the caller's token.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use prost::Message as _;

use crate::{domain::digest::Hasher, proto::v1::UploadSpec};

/// The place where the id of one upload is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Started(PathBuf);

impl Started {
    /// The place for uploading this file, as it is now, to this server. Nothing where the user has no state directory.
    pub(super) fn of(server: &str, path: &Path, spec: &UploadSpec) -> io::Result<Option<Self>> {
        directory().map(|directory| Self::below(&directory, server, path, spec)).transpose()
    }

    fn below(directory: &Path, server: &str, path: &Path, spec: &UploadSpec) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let about = fs::metadata(&path)?;
        let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut hasher = Hasher::default();
        for field in [
            server.as_bytes(),
            path.as_os_str().as_encoded_bytes(),
            &about.len().to_be_bytes(),
            &modified.as_nanos().to_be_bytes(),
            &spec.encode_to_vec(),
        ] {
            hasher.field(field);
        }
        Ok(Self(directory.join(hasher.finish().to_string())))
    }

    /// The id that was kept, if there is one.
    pub(super) fn upload_id(&self) -> Option<String> {
        let id = fs::read_to_string(&self.0).ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }

    /// Keeps an id.
    pub(super) fn keep(&self, upload_id: &str) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&self.0, format!("{upload_id}\n"))
    }

    /// The upload came to its end.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// As the XDG base directories say: state that should outlive the process.
fn directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("strongroom").join("uploads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_the_same_one_as_long_as_server_file_and_spec_are() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.bin");
        fs::write(&file, "abc").unwrap();
        let spec = UploadSpec { name: "a.bin".into(), ..UploadSpec::default() };
        let of =
            |server: &str, spec: &UploadSpec| Started::below(directory.path(), server, &file, spec).unwrap();
        let started = of("https://a", &spec);
        assert_eq!(started, of("https://a", &spec));
        assert_ne!(started, of("https://b", &spec));
        assert_ne!(started, of("https://a", &UploadSpec { title: "t".into(), ..spec.clone() }));

        assert_eq!(started.upload_id(), None);
        started.keep("id").unwrap();
        assert_eq!(of("https://a", &spec).upload_id().as_deref(), Some("id"));
        fs::write(&file, "abcd").unwrap();
        assert_eq!(of("https://a", &spec).upload_id(), None, "the file is another one");
        started.forget().unwrap();
        started.forget().unwrap();
    }
}
