//! Random calls that fit the state of a tenant.

use super::{
    calls::{Call, Content},
    expected::{Person, Tenant, Upload},
    rng::Rng,
    sharing::draw_sharing_call,
};
use crate::harness::PART;

pub(super) const PEOPLE: [Person; 3] = [
    Person { user: "ann", role: "member" },
    Person { user: "ben", role: "member" },
    Person { user: "zoe", role: "admin" },
];

const CALLS: &[(usize, &str)] = &[
    (12, "upload"),
    (9, "version"),
    (7, "create"),
    (20, "send"),
    (2, "cancel"),
    (7, "delete"),
    (6, "undelete"),
    (3, "purge"),
    (3, "batch delete"),
    (4, "archive"),
    (4, "unarchive"),
    (6, "rename"),
    (6, "restore"),
    (5, "delete version"),
    (6, "copy"),
    (6, "limit"),
    (6, "credits"),
    (6, "share"),
    (2, "revoke share"),
    (6, "grant"),
    (2, "revoke grant"),
];

/// Draws a mutation that makes sense in the current state, and its caller.
pub(super) fn draw_call(rng: &mut Rng, tenant: &Tenant, now: i64) -> (Person, Call) {
    let is_resumable = |upload: &Upload| upload.persisted_bytes > 0 && upload.lease_expire_time > now;
    // Uploads with persisted bytes are rare, so resume them more often than their weight says.
    let is_resumed = tenant.uploads.values().any(is_resumable) && rng.chance(30);
    let name = if is_resumed { "send" } else { rng.pick_weighted(CALLS) };
    let needs_upload = matches!(name, "send" | "cancel");
    let ids: Vec<String> = tenant.files.keys().cloned().collect();
    if needs_upload && let Some(drawn) = draw_upload_call(rng, tenant, name, now) {
        return drawn;
    }
    let needs_file = !matches!(name, "upload" | "create" | "limit" | "credits");
    let Some(id) = rng.pick(&ids).filter(|_| needs_file && !needs_upload) else {
        // Without an upload to send to, create one.
        return draw_call_without_file(rng, tenant, if needs_upload { "create" } else { name });
    };
    if matches!(name, "share" | "revoke share" | "grant" | "revoke grant") {
        return draw_sharing_call(rng, tenant, name, id);
    }
    let (name, id) = prefer_file_with_versions(rng, tenant, name, id);
    let owner = tenant.files[&id].owner;
    let person = if rng.chance(75) {
        PEOPLE.iter().find(|person| person.user == owner).unwrap().clone()
    } else {
        rng.pick(&PEOPLE).unwrap()
    };
    let call = draw_file_call(rng, tenant, name, id);
    (person, call)
}

/// For calls that name an earlier version, mostly picks a file that has one. If no file has one, uploads a
/// version instead.
fn prefer_file_with_versions<'a>(
    rng: &mut Rng,
    tenant: &Tenant,
    name: &'a str,
    file: String,
) -> (&'a str, String) {
    if !matches!(name, "restore" | "delete version") || rng.chance(15) {
        return (name, file);
    }
    let several =
        tenant.files.iter().filter(|(_, file)| file.versions.len() > 1 && file.purge_time.is_none());
    let several: Vec<String> = several.map(|(id, _)| id.clone()).collect();
    match rng.pick(&several) {
        Some(file) => (name, file),
        None => ("version", file),
    }
}

/// Draws a name. Sorting by name gives another order than sorting by creation time.
fn draw_name(rng: &mut Rng) -> String {
    format!("{}-{}", ["Zebra", "apple", "Über", "mango"][rng.below(4)], rng.below(1_000))
}

/// Draws content whose size is often close to a boundary: empty, one part, two parts.
fn draw_content(rng: &mut Rng) -> Content {
    let len = match rng.below(10) {
        0 => rng.below(2),
        1 => PART - 1 + rng.below(3),
        2 => 2 * PART - 1 + rng.below(3),
        3 => 2 * PART + rng.below(2 * PART),
        _ => 1 + rng.below(20_000),
    };
    Content { seed: rng.next_u64(), len }
}

fn draw_call_without_file(rng: &mut Rng, tenant: &Tenant, name_of_call: &str) -> (Person, Call) {
    let person = rng.pick(&PEOPLE).unwrap();
    let is_size_known = rng.chance(50);
    match name_of_call {
        "limit" => {
            let person = if rng.chance(85) { PEOPLE[2].clone() } else { person };
            let total = tenant.used_bytes() + tenant.reserved_bytes();
            let bytes = match rng.below(4) {
                // Exactly full, one byte too low, nearly full, and far from full.
                0 => total,
                1 => (total - 1).max(0),
                2 => total + rng.below(PART) as i64,
                _ => total + rng.below(10 * PART) as i64,
            };
            (person, Call::SetLimit { bytes })
        }
        "credits" => {
            let person = if rng.chance(85) { PEOPLE[2].clone() } else { person };
            let user = rng.pick(&PEOPLE).unwrap().user;
            let balance = tenant.credits_of(user);
            let amount = match rng.below(4) {
                // All credits, one too many, and a few.
                0 if balance > 0 => -balance,
                1 => -balance - 1,
                2 => -1 - rng.below(10) as i64,
                _ => 1 + rng.below(10) as i64,
            };
            (person, Call::ChangeCredits { user, amount })
        }
        "create" => {
            let (name, content) = (draw_name(rng), draw_content(rng));
            // Mostly more than one part, so that the upload can be resumed after a part.
            let more = if rng.chance(75) { PART + rng.below(2 * PART) } else { 0 };
            let content = Content { len: content.len + more, ..content };
            (person, Call::CreateUpload { name, content, is_size_known })
        }
        _ => {
            let (name, content) = (draw_name(rng), draw_content(rng));
            (person, Call::Upload { name, content, is_size_known })
        }
    }
}

fn draw_upload_call(rng: &mut Rng, tenant: &Tenant, name: &str, now: i64) -> Option<(Person, Call)> {
    let ids: Vec<String> = tenant.uploads.keys().cloned().collect();
    let resumable = tenant.uploads.iter().filter(|(_, upload)| upload.persisted_bytes > 0);
    let resumable: Vec<String> = resumable.map(|(id, _)| id.clone()).collect();
    let id = if rng.chance(70) { rng.pick(&resumable) } else { None };
    let id = id.or_else(|| rng.pick(&ids))?;
    let upload = &tenant.uploads[&id];
    let person = PEOPLE.iter().find(|person| person.user == upload.owner).unwrap().clone();
    let person = if rng.chance(90) { person } else { rng.pick(&PEOPLE).unwrap() };
    if name == "cancel" {
        return Some((person, Call::CancelUpload { upload: id }));
    }
    let content = upload.content;
    // From the end of the persisted bytes, or from the start of an earlier part, whose bytes are sent
    // again.
    let from = if tenant.open_upload(&id, now).is_none() {
        0
    } else if rng.chance(70) || upload.persisted_bytes == 0 {
        upload.persisted_bytes
    } else {
        rng.below(upload.persisted_bytes / PART + 1) * PART
    };
    let is_finished = rng.chance(55);
    let to = if is_finished { content.len } else { from.max(upload.persisted_bytes) };
    let to = to + if is_finished { 0 } else { rng.below(content.len - to + 1) };
    Some((person, Call::SendBytes { upload: id, content, from, to, is_finished }))
}

fn draw_file_call(rng: &mut Rng, tenant: &Tenant, name_of_call: &str, file: String) -> Call {
    let target = &tenant.files[&file];
    let numbers: Vec<i32> = target.versions.keys().copied().collect();
    let earlier: Vec<i32> = numbers.iter().copied().filter(|number| *number != target.current).collect();
    let version = match rng.below(10) {
        0..=5 => rng.pick(&earlier).unwrap_or(target.current),
        6..=8 => rng.pick(&numbers).unwrap(),
        _ => rng.below(6) as i32 + 1,
    };
    match name_of_call {
        "version" => Call::UploadVersion { file, content: draw_content(rng), is_size_known: rng.chance(50) },
        "delete" => Call::Delete { file },
        "undelete" => {
            let trash: Vec<String> = list_trash(tenant);
            let file = if rng.chance(80) { rng.pick(&trash).unwrap_or(file) } else { file };
            Call::Undelete { file }
        }
        "purge" => Call::Purge { file },
        "archive" => Call::Archive { file },
        "unarchive" => Call::Unarchive { file },
        "rename" => {
            let etag = match rng.below(3) {
                0 => String::new(),
                1 => target.etag.clone(),
                _ => "1-999".to_owned(),
            };
            Call::Rename { file, name: draw_name(rng), etag }
        }
        "restore" => Call::RestoreVersion { file, version },
        "delete version" => Call::DeleteVersion { file, version },
        "copy" => {
            let version = if rng.chance(40) { 0 } else { version };
            Call::Copy { file, version, name: draw_name(rng) }
        }
        _ => {
            let mut files: Vec<String> = tenant.files.keys().filter(|_| rng.chance(40)).cloned().collect();
            if !files.contains(&file) {
                files.push(file);
            }
            Call::BatchDelete { files }
        }
    }
}

fn list_trash(tenant: &Tenant) -> Vec<String> {
    let trash = tenant.files.iter().filter(|(_, file)| file.purge_time.is_some());
    trash.map(|(id, _)| id.clone()).collect()
}
