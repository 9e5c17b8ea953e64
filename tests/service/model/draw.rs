//! What is done next: drawn from the dice and from what there is.

use super::{
    books::{Tenant, Upload, Who},
    calls::{Call, Content},
    dice::Dice,
};
use crate::harness::PART;

pub(super) const PEOPLE: [Who; 3] = [
    Who { user: "ann", role: "member" },
    Who { user: "ben", role: "member" },
    Who { user: "zoe", role: "admin" },
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
];

/// Any mutation that makes sense now, and who asks for it.
pub(super) fn draw(dice: &mut Dice, tenant: &Tenant, now: i64) -> (Who, Call) {
    let is_begun = |upload: &Upload| upload.persisted > 0 && upload.until > now;
    // What has come so far is seldom, so it is gone on with more often than its turn would come.
    let goes_on = tenant.uploads.values().any(is_begun) && dice.is(30);
    let name = if goes_on { "send" } else { dice.weighted(CALLS) };
    let about_uploads = matches!(name, "send" | "cancel");
    let ids: Vec<String> = tenant.files.keys().cloned().collect();
    if about_uploads && let Some(drawn) = of_upload(dice, tenant, name, now) {
        return drawn;
    }
    let needs_file = !matches!(name, "upload" | "create" | "limit");
    let Some(id) = dice.pick(&ids).filter(|_| needs_file && !about_uploads) else {
        // Where there is no upload to go on with, there is one now.
        return without_file(dice, tenant, if about_uploads { "create" } else { name });
    };
    let (name, id) = about_versions(dice, tenant, name, id);
    let owner = tenant.files[&id].owner;
    let who = if dice.is(75) {
        PEOPLE.iter().find(|who| who.user == owner).unwrap().clone()
    } else {
        dice.pick(&PEOPLE).unwrap()
    };
    let call = of_file(dice, tenant, name, id);
    (who, call)
}

/// What is about an earlier version mostly finds a file that has one, or makes one.
fn about_versions<'a>(dice: &mut Dice, tenant: &Tenant, name: &'a str, file: String) -> (&'a str, String) {
    if !matches!(name, "restore" | "delete version") || dice.is(15) {
        return (name, file);
    }
    let several =
        tenant.files.iter().filter(|(_, file)| file.versions.len() > 1 && file.purge_time.is_none());
    let several: Vec<String> = several.map(|(id, _)| id.clone()).collect();
    match dice.pick(&several) {
        Some(file) => (name, file),
        None => ("version", file),
    }
}

/// Names are drawn, so that their order is not that of their birth.
fn name(dice: &mut Dice) -> String {
    format!("{}-{}", ["Zebra", "apple", "Über", "mango"][dice.below(4)], dice.below(1_000))
}

/// Sizes around those where something changes: nothing, one part, and several.
fn content(dice: &mut Dice) -> Content {
    let len = match dice.below(10) {
        0 => dice.below(2),
        1 => PART - 1 + dice.below(3),
        2 => 2 * PART - 1 + dice.below(3),
        3 => 2 * PART + dice.below(2 * PART),
        _ => 1 + dice.below(20_000),
    };
    Content { seed: dice.next(), len }
}

fn without_file(dice: &mut Dice, tenant: &Tenant, name_of_call: &str) -> (Who, Call) {
    let who = dice.pick(&PEOPLE).unwrap();
    let is_size_known = dice.is(50);
    match name_of_call {
        "limit" => {
            let who = if dice.is(85) { PEOPLE[2].clone() } else { who };
            let taken = tenant.used() + tenant.reserved();
            let bytes = match dice.below(4) {
                // As full as it can be, one byte less than that, nearly full, and far from it.
                0 => taken,
                1 => (taken - 1).max(0),
                2 => taken + dice.below(PART) as i64,
                _ => taken + dice.below(10 * PART) as i64,
            };
            (who, Call::Limit { bytes })
        }
        "create" => {
            let (name, content) = (name(dice), content(dice));
            // Mostly more than a part, so that there is something to go on behind.
            let more = if dice.is(75) { PART + dice.below(2 * PART) } else { 0 };
            let content = Content { len: content.len + more, ..content };
            (who, Call::Create { name, content, is_size_known })
        }
        _ => {
            let (name, content) = (name(dice), content(dice));
            (who, Call::Upload { name, content, is_size_known })
        }
    }
}

fn of_upload(dice: &mut Dice, tenant: &Tenant, name: &str, now: i64) -> Option<(Who, Call)> {
    let ids: Vec<String> = tenant.uploads.keys().cloned().collect();
    let begun = tenant.uploads.iter().filter(|(_, upload)| upload.persisted > 0);
    let begun: Vec<String> = begun.map(|(id, _)| id.clone()).collect();
    let id = if dice.is(70) { dice.pick(&begun) } else { None };
    let id = id.or_else(|| dice.pick(&ids))?;
    let upload = &tenant.uploads[&id];
    let who = PEOPLE.iter().find(|who| who.user == upload.owner).unwrap().clone();
    let who = if dice.is(90) { who } else { dice.pick(&PEOPLE).unwrap() };
    if name == "cancel" {
        return Some((who, Call::Cancel { upload: id }));
    }
    let content = upload.content;
    // From where it stands or, with the bytes sent again, from any part before.
    let from = if tenant.open(&id, now).is_none() {
        0
    } else if dice.is(70) || upload.persisted == 0 {
        upload.persisted
    } else {
        dice.below(upload.persisted / PART + 1) * PART
    };
    let is_finished = dice.is(55);
    let upto = if is_finished { content.len } else { from.max(upload.persisted) };
    let upto = upto + if is_finished { 0 } else { dice.below(content.len - upto + 1) };
    Some((who, Call::Send { upload: id, content, from, upto, is_finished }))
}

fn of_file(dice: &mut Dice, tenant: &Tenant, name_of_call: &str, file: String) -> Call {
    let about = &tenant.files[&file];
    let numbers: Vec<i32> = about.versions.keys().copied().collect();
    let earlier: Vec<i32> = numbers.iter().copied().filter(|number| *number != about.current).collect();
    let version = match dice.below(10) {
        0..=5 => dice.pick(&earlier).unwrap_or(about.current),
        6..=8 => dice.pick(&numbers).unwrap(),
        _ => dice.below(6) as i32 + 1,
    };
    match name_of_call {
        "version" => Call::Version { file, content: content(dice), is_size_known: dice.is(50) },
        "delete" => Call::Delete { file },
        "undelete" => {
            let trash: Vec<String> = trashed(tenant);
            let file = if dice.is(80) { dice.pick(&trash).unwrap_or(file) } else { file };
            Call::Undelete { file }
        }
        "purge" => Call::Purge { file },
        "archive" => Call::Archive { file },
        "unarchive" => Call::Unarchive { file },
        "rename" => {
            let etag = match dice.below(3) {
                0 => String::new(),
                1 => about.etag.clone(),
                _ => "1-999".to_owned(),
            };
            Call::Rename { file, name: name(dice), etag }
        }
        "restore" => Call::Restore { file, version },
        "delete version" => Call::DeleteVersion { file, version },
        "copy" => {
            let version = if dice.is(40) { 0 } else { version };
            Call::Copy { file, version, name: name(dice) }
        }
        _ => {
            let mut files: Vec<String> = tenant.files.keys().filter(|_| dice.is(40)).cloned().collect();
            if !files.contains(&file) {
                files.push(file);
            }
            Call::BatchDelete { files }
        }
    }
}

fn trashed(tenant: &Tenant) -> Vec<String> {
    let trash = tenant.files.iter().filter(|(_, file)| file.purge_time.is_some());
    trash.map(|(id, _)| id.clone()).collect()
}
