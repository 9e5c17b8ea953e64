//! Reports whether a caller may do something with a file, and by which rule.

use std::sync::Arc;

use crate::{
    app::{
        App, Denial, Error, Resource,
        access::{self, AccessRule, Operation},
    },
    db::{Viewer, files},
    domain::{
        caller::{Actor, ActorKind, Caller, Origin, Role},
        ids::FileId,
    },
};

/// A caller to ask about.
#[derive(Debug, Clone)]
pub struct Subject {
    pub actor: Actor,
    pub role: Role,
    pub groups: Vec<String>,
}

/// The question whether a caller may do something with a file.
#[derive(Debug, Clone)]
pub struct AccessQuestion {
    pub file: FileId,
    pub operation: Operation,
    /// `None` means the caller of the request.
    pub subject: Option<Subject>,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessReport {
    /// The rule permits the operation.
    Permitted(AccessRule),
    /// The subject sees the file, and no rule permits the operation.
    Denied(Denial),
    /// The file is hidden from the subject.
    Hidden,
}

/// Checks with the code that the operations use. Reads the file with the permissions of the subject, so row-level
/// security takes part in the check.
///
/// # Errors
/// Returns `NotFound` if the file does not exist, or if the caller asks about itself and does not see the file, and
/// `NotAllowed` if the caller asks about another and is neither an admin nor a service.
pub async fn check_access(
    app: &App,
    caller: &Caller,
    question: AccessQuestion,
) -> Result<AccessReport, Error> {
    let Some(subject) = question.subject else {
        return match check_as(app, caller, question.file, question.operation).await? {
            AccessReport::Hidden => Err(Error::NotFound(Resource::File)),
            report => Ok(report),
        };
    };
    if caller.role < Role::Admin && caller.actor.kind != ActorKind::Service {
        return Err(Error::NotAllowed(Denial::AsksAboutOthers));
    }
    let subject = Caller {
        tenant: Arc::clone(&caller.tenant),
        actor: subject.actor,
        role: subject.role,
        groups: subject.groups,
        scopes: Vec::new(),
        origin: Origin::default(),
        first_call: None,
    };
    match check_as(app, &subject, question.file, question.operation).await? {
        AccessReport::Hidden if !exists(app, caller, question.file).await? => {
            Err(Error::NotFound(Resource::File))
        }
        report => Ok(report),
    }
}

async fn check_as(
    app: &App,
    subject: &Caller,
    file: FileId,
    operation: Operation,
) -> Result<AccessReport, Error> {
    let mut tx = app.db.tenant_tx(subject.tenant_id(), &Viewer::from_caller(subject)).await?;
    let found = files::get(&mut tx, file).await;
    let Some(found) = tx.finish(found).await? else { return Ok(AccessReport::Hidden) };
    match access::check_access(subject, &found, operation) {
        Ok(rule) => Ok(AccessReport::Permitted(rule)),
        Err(Error::NotAllowed(denial)) => Ok(AccessReport::Denied(denial)),
        Err(Error::NotFound(_)) => Ok(AccessReport::Hidden),
        Err(error) => Err(error),
    }
}

/// Returns whether the tenant has the file, also if it is hidden from the caller.
async fn exists(app: &App, caller: &Caller, file: FileId) -> Result<bool, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let found = files::get(&mut tx, file).await;
    Ok(tx.finish(found).await?.is_some())
}
