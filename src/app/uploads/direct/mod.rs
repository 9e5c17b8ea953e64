//! Uploads whose bytes go straight to the store.
//!
//! One of one piece is put under a staging key, and copied to a key of its own when it is completed: a URL that is still alive
//! writes where nobody reads. A larger one is a multipart upload on its own key, which the service completes: its URLs die
//! with it. Either way the upload's row owns all of it until the end.
//!
//! `create` reserves and makes the place, `urls` signs what clients write to, `complete` puts the object together and commits
//! the file as PROCESSING, and a job reads all of it (`verify`) before anybody else may.

pub(super) mod complete;
pub(super) mod create;
pub mod urls;
pub mod verify;

use super::target::{Target, target};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, upload_spec::CheckedSpec},
    storage::PutOptions,
};

/// The key and the options of objects that clients write.
fn place(app: &App, caller: &Caller, spec: &CheckedSpec) -> Result<Target, Error> {
    let target = target(app, caller, spec)?;
    Ok(Target { options: PutOptions { has_parts_by_url: true, ..target.options }, ..target })
}
