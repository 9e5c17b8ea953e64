//! Gives the files of someone who leaves to someone else.

use crate::{
    app::{
        App, Error, access, audit,
        idempotency::{self, Begun},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        events::{self, Event},
        file_owners::{self, OwnedFile},
        idempotency_keys::Method,
    },
    domain::{
        caller::Caller,
        event_position::EventPosition,
        ids::{FileId, RequestId},
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
        violations::Violations,
    },
};

/// Files of one call when nothing is said, and at most: each is a row of the audit log and an event in one transaction.
const FILES_DEFAULT: i32 = 500;
const FILES_MAX: i32 = 1_000;

/// Whose files go to whom.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Who has them.
    pub from_user: String,
    /// Who gets them.
    pub to_user: String,
    /// How many at most; 0 means the default.
    pub limit: i32,
    /// Whether only to count.
    pub is_dry_run: bool,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// What one call did, and what is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transferred {
    /// Files that changed their owner.
    pub file_count: i64,
    /// Files that the old owner still has.
    pub remaining_file_count: i64,
    /// Their bytes.
    pub remaining_bytes: i64,
    /// Where the last of its events stands; none where no file changed its owner.
    #[serde(default)]
    pub event: Option<EventPosition>,
}

/// Gives files of one user of the tenant to another, the trash too, a bounded number of them: whoever repeats it until
/// nothing remains has given all. Who may read them besides the owner stays as it is.
///
/// # Errors
/// `Invalid` with every violation, `NotAllowed`.
pub async fn transfer_ownership(app: &App, caller: &Caller, asked: Transfer) -> Result<Transferred, Error> {
    if let Err(why) = access::can_administer(caller) {
        return Err(audit::denied(app, caller, AuditAction::OwnershipTransfer, None, why).await);
    }
    let limit = check(&asked)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let transferred = run(app, &mut tx, caller, &asked, limit).await;
    tx.finish(transferred).await
}

fn check(asked: &Transfer) -> Result<i32, Violations> {
    let mut wrong = Violations::new();
    wrong.take("from_user_id", text::line(&asked.from_user, EXTERNAL_ID_CHARACTERS_MAX));
    wrong.take("to_user_id", text::line(&asked.to_user, EXTERNAL_ID_CHARACTERS_MAX));
    if asked.from_user == asked.to_user {
        wrong.add("to_user_id", "must be someone else than from_user_id");
    }
    if asked.limit < 0 {
        wrong.add("batch_size", "must not be negative; 0 means the default");
    }
    wrong.into_result()?;
    Ok(if asked.limit == 0 { FILES_DEFAULT } else { asked.limit.min(FILES_MAX) })
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    asked: &Transfer,
    limit: i32,
) -> Result<Transferred, Error> {
    if asked.is_dry_run {
        return remaining(tx, &asked.from_user, 0).await;
    }
    let payload = [
        caller.actor.id.clone().into_bytes(),
        asked.from_user.clone().into_bytes(),
        asked.to_user.clone().into_bytes(),
        limit.to_be_bytes().to_vec(),
    ];
    let begun = idempotency::begin(app, tx, asked.request_id, Method::TransferOwnership, &payload).await?;
    let attempt = match begun {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Fresh(attempt) => attempt,
    };
    let owned = file_owners::lock(tx, &asked.from_user, limit.into()).await?;
    if !owned.is_empty() {
        let ids: Vec<FileId> = owned.iter().map(|file| file.id).collect();
        file_owners::set(tx, &ids, &asked.to_user, &caller.actor.id).await?;
        note(tx, caller, asked, &owned).await?;
    }
    let count = i64::try_from(owned.len()).unwrap_or(i64::MAX);
    let transferred = remaining(tx, &asked.from_user, count).await?;
    if let Some(attempt) = attempt {
        attempt.record(tx, &transferred).await?;
    }
    Ok(transferred)
}

/// Every file has its own entry and its own event.
async fn note(
    tx: &mut TenantTx,
    caller: &Caller,
    asked: &Transfer,
    owned: &[OwnedFile],
) -> Result<(), Error> {
    let details = serde_json::json!({ "from": asked.from_user, "to": asked.to_user });
    let entry = |file: &OwnedFile| AuditEntry {
        details: details.clone(),
        ..audit::entry(caller, AuditAction::OwnershipTransfer, Some((file.id, file.version)))
    };
    audit_entries::insert(tx, &owned.iter().map(entry).collect::<Vec<_>>()).await?;
    let hands = (asked.from_user.as_str(), asked.to_user.as_str());
    let event = |file: &OwnedFile| Event::of_transfer(file, hands, &caller.actor.id);
    Ok(events::insert(tx, &owned.iter().map(event).collect::<Vec<_>>()).await?)
}

async fn remaining(tx: &mut TenantTx, owner: &str, file_count: i64) -> Result<Transferred, Error> {
    let (remaining_file_count, remaining_bytes) = file_owners::sum(tx, owner).await?;
    Ok(Transferred { file_count, remaining_file_count, remaining_bytes, event: tx.last_event() })
}
