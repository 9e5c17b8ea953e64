//! The quarantine: objects that no other row references, and that an operator keeps. It is a table, so an object keeps
//! its key and its label, nothing is copied, and a released object can be readopted.

use super::report::ObjectTotals;
use crate::{
    app::{App, Error, storage::delete_objects::delete_objects},
    db::{
        quarantined_objects::{self, ObjectToQuarantine, QuarantineCursor, QuarantinedObject},
        unknown_objects,
    },
    domain::{error_text::with_causes, ids::TenantId, object_key::ObjectKey},
    storage::ObjectInfo,
};

/// The number of rows in a page.
const PAGE: i64 = 500;

/// Quarantines objects of a store.
pub(super) async fn quarantine_objects(
    app: &App,
    provider: &str,
    objects: &[ObjectInfo],
    reason: &str,
) -> Result<(), Error> {
    let to_row = |object: &ObjectInfo| ObjectToQuarantine {
        key: object.key.clone(),
        size_bytes: object.size_bytes,
        modify_time: object.modify_time,
    };
    let rows: Vec<ObjectToQuarantine> = objects.iter().map(to_row).collect();
    let mut tx = app.db.system_tx().await?;
    quarantined_objects::insert(&mut tx, provider, &rows, reason).await?;
    Ok(tx.commit().await?)
}

/// Selects quarantined objects. Absent fields select all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    pub provider: Option<String>,
    pub tenant: Option<TenantId>,
    /// These keys only; all if empty.
    pub keys: Vec<String>,
}

impl QuarantineFilter {
    fn matches(&self, object: &QuarantinedObject) -> bool {
        self.provider.as_ref().is_none_or(|provider| *provider == object.provider)
            && self.tenant.is_none_or(|tenant| tenant == object.tenant)
            && (self.keys.is_empty() || self.keys.iter().any(|key| key == object.key.as_str()))
    }
}

/// What to do with quarantined objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineAction {
    List,
    /// End the quarantine: a sweep deletes the object later, unless it is readopted.
    Release,
    /// Delete the object from its store now.
    Delete,
}

/// The result for the selected objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct QuarantineReport {
    /// The first selected objects.
    pub objects: Vec<QuarantinedObject>,
    /// All selected objects.
    pub selected: ObjectTotals,
    /// The selected objects whose deletion failed: the key and the error.
    pub failures: Vec<String>,
}

/// Lists, releases or deletes quarantined objects. The report lists at most `entries_max` of them.
///
/// # Errors
/// Returns an error if the database is unavailable, or if a provider is not configured. Errors of a store are in the
/// report.
pub async fn process_quarantine(
    app: &App,
    filter: &QuarantineFilter,
    action: QuarantineAction,
    entries_max: usize,
) -> Result<QuarantineReport, Error> {
    let (mut report, mut after) = (QuarantineReport::default(), None);
    loop {
        let mut tx = app.db.system_tx().await?;
        let page = quarantined_objects::list(&mut tx, after, PAGE).await?;
        tx.commit().await?;
        let Some(last) = page.last() else { return Ok(report) };
        after = Some(last.cursor());
        let selected: Vec<QuarantinedObject> =
            page.into_iter().filter(|object| filter.matches(object)).collect();
        match action {
            QuarantineAction::List => {}
            QuarantineAction::Release => {
                let cursors: Vec<QuarantineCursor> = selected.iter().map(QuarantinedObject::cursor).collect();
                delete_rows(app, &cursors).await?;
            }
            QuarantineAction::Delete => delete_bytes(app, &selected, &mut report).await?,
        }
        for object in selected {
            report.selected.add(u64::try_from(object.size_bytes).unwrap_or_default());
            if report.objects.len() < entries_max {
                report.objects.push(object);
            }
        }
    }
}

/// Deletes objects from their stores, and then the rows of those that were deleted. So a crash in between leaves a row
/// that is processed again.
async fn delete_bytes(
    app: &App,
    selected: &[QuarantinedObject],
    report: &mut QuarantineReport,
) -> Result<(), Error> {
    for provider in app.list_providers() {
        let objects: Vec<&QuarantinedObject> =
            selected.iter().filter(|object| object.provider == provider).collect();
        if objects.is_empty() {
            continue;
        }
        let keys: Vec<ObjectKey> = objects.iter().map(|object| object.key.clone()).collect();
        let store = app.stores.get(&provider)?;
        let mut deleted = Vec::new();
        for (object, result) in objects.iter().zip(delete_objects(store.as_ref(), &keys).await) {
            match result {
                Ok(()) => deleted.push(object.cursor()),
                Err(error) => report.failures.push(format!("{}: {}", object.key, with_causes(&error))),
            }
        }
        delete_rows(app, &deleted).await?;
    }
    let configured = app.list_providers();
    for object in selected.iter().filter(|object| !configured.contains(&object.provider)) {
        let problem = format!("{}: the provider `{}` is not configured", object.key, object.provider);
        report.failures.push(problem);
    }
    Ok(())
}

async fn delete_rows(app: &App, objects: &[QuarantineCursor]) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    for object in objects {
        // The row of an upload that was open in the restored state would delete a released object at once.
        unknown_objects::delete_abandoned_uploads(&mut tx, &object.key).await?;
        quarantined_objects::delete(&mut tx, object).await?;
    }
    Ok(tx.commit().await?)
}
