//! What the client names when it completes a direct upload: the size, the digest, and the etags of the parts. It is
//! compared with the spec and with the parts in the store; and if the upload was completed before, with what the
//! client named then.

use super::part_count;
use crate::{
    app::{
        Error,
        uploads::{
            UploadError,
            receive::{
                compare::CommittedContent,
                message::{CompletedPart, Completion},
            },
        },
    },
    db::{resumable_uploads::StoredUpload, upload_completions::UploadCompletion},
    domain::{digest::Digest, upload_spec::CheckedSpec, violations::Violations},
    storage::PartReceipt,
};

/// Checks the completion against the spec. Returns the digest, if the client declared one in either.
pub(super) fn check_completion(
    completion: &Completion,
    spec: &CheckedSpec,
    size_bytes: u64,
) -> Result<Option<Digest>, Error> {
    let mut violations = Violations::new();
    if let Some(sent) = completion.size_bytes.filter(|sent| u64::try_from(*sent) != Ok(size_bytes)) {
        violations.add(
            "size_bytes",
            format!("is {sent}, but {size_bytes} was declared; send the declared size or omit it"),
        );
    }
    let sha256 = completion.sha256.as_deref();
    let sha256 = sha256.and_then(|raw| violations.ok_or_add("sha256", Digest::from_slice(raw)));
    if let (Some(sha256), Some(declared)) = (sha256, spec.sha256)
        && sha256 != declared
    {
        violations.add(
            "sha256",
            format!("is {sha256}, but {declared} was declared; send the declared digest or omit it"),
        );
    }
    violations.into_result()?;
    Ok(sha256.or(spec.sha256))
}

/// Checks that the client names existing part numbers, each once.
pub(super) fn check_part_numbers(parts: &[CompletedPart], count: u64) -> Result<(), Violations> {
    let mut violations = Violations::new();
    for (index, CompletedPart { number, .. }) in parts.iter().enumerate() {
        let field = format!("parts[{index}].number");
        if !u64::try_from(*number).is_ok_and(|number| (1..=count).contains(&number)) {
            violations.add(field, format!("is {number}; parts are numbered from 1 to {count}"));
        } else if parts[..index].iter().any(|before| before.number == *number) {
            violations.add(field, format!("part {number} is listed twice"));
        }
    }
    violations.into_result()
}

/// Checks that all parts are in the store, with the right sizes and with the etags that the client sent.
pub(super) fn check_parts(
    stored: &StoredUpload,
    size_bytes: u64,
    receipts: &[PartReceipt],
    parts: &[CompletedPart],
) -> Result<(), Error> {
    let part_size_bytes = stored.upload.part_size_bytes;
    let count = part_count(&stored.upload, size_bytes);
    let mut violations = Violations::new();
    for (number, index) in (1..).zip(0..count) {
        let field = format!("parts[{index}]");
        let Some(receipt) = receipts.iter().find(|receipt| receipt.number == number) else {
            violations.add(field, format!("part {number} is not in the store; PUT it, then complete again"));
            continue;
        };
        let declared = part_size_bytes.min(size_bytes - index * part_size_bytes);
        if receipt.size_bytes != declared {
            return Err(
                UploadError::PartSizeMismatch { number, declared, received: receipt.size_bytes }.into()
            );
        }
        let named = parts.iter().find(|part| u32::try_from(part.number) == Ok(number));
        match named {
            Some(part) if bare_etag(&part.etag) == bare_etag(&receipt.etag) => {}
            Some(_) => violations
                .add(field, format!("part {number} has a different etag in the store; PUT it again")),
            None => violations.add(field, format!("part {number} is missing; add it with its etag")),
        }
    }
    for receipt in receipts.iter().filter(|receipt| u64::from(receipt.number) > count) {
        violations.add(
            "parts",
            format!("part {} is in the store, but the upload has only {count} parts", receipt.number),
        );
    }
    Ok(violations.into_result()?)
}

/// Checks that a committed upload is completed again with the same size and digest, and with the same etags of the
/// parts that are named.
///
/// # Errors
/// Returns `SizeMismatch`, `ChecksumMismatch` or `PartEtagMismatch` if not, and `Invalid` for values that no completion
/// can have.
pub(super) fn check_same_completion(
    completion: &Completion,
    stored: &StoredUpload,
    first: &UploadCompletion,
) -> Result<(), Error> {
    let size_bytes = stored.spec.checked.size_bytes.unwrap_or_default();
    let mut violations = Violations::new();
    let sent_bytes = completion.size_bytes.and_then(|sent| {
        violations.ok_or_add("size_bytes", u64::try_from(sent).map_err(|_| "must not be negative"))
    });
    let sent = completion.sha256.as_deref();
    let sent = sent.and_then(|raw| violations.ok_or_add("sha256", Digest::from_slice(raw)));
    violations.into_result()?;
    check_part_numbers(&completion.parts, part_count(&stored.upload, size_bytes))?;
    let committed = CommittedContent { size_bytes, sha256: first.sha256 };
    committed.check(sent_bytes.unwrap_or(size_bytes), sent)?;
    Ok(check_same_parts(&completion.parts, first)?)
}

/// Checks that the parts that are named have the etags of an earlier completion.
///
/// # Errors
/// Returns `PartEtagMismatch` if not.
pub(super) fn check_same_parts(parts: &[CompletedPart], first: &UploadCompletion) -> Result<(), UploadError> {
    let differs = |part: &&CompletedPart| {
        let before = u32::try_from(part.number).ok().and_then(|number| first.etags.get(&number));
        before.is_some_and(|etag| *etag != etag_digest(part))
    };
    match parts.iter().find(differs) {
        Some(part) => Err(UploadError::PartEtagMismatch { number: part.number }),
        None => Ok(()),
    }
}

/// Returns what is recorded of a completion.
pub(super) fn completion_record(parts: &[CompletedPart], sha256: Option<Digest>) -> UploadCompletion {
    let etag = |part: &CompletedPart| Some((u32::try_from(part.number).ok()?, etag_digest(part)));
    UploadCompletion { sha256, etags: parts.iter().filter_map(etag).collect() }
}

fn etag_digest(part: &CompletedPart) -> Digest {
    Digest::compute(bare_etag(&part.etag).as_bytes())
}

/// Returns an etag without the quotes of the HTTP header.
fn bare_etag(etag: &str) -> &str {
    etag.trim_matches('"')
}
