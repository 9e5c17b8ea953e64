//! A full disk under the local provider.
//!
//! Each test re-executes itself in a new mount namespace with a small tmpfs, which the kernel removes with
//! the process. Root can always do that; other users need user namespaces, which most systems allow.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use strongroom::storage::{AdapterOptions, StorageErrorKind};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{PART, Service, file_id, pattern, reason, service_test_in, spec};

/// The directory where the small disk is mounted. Set only in the re-executed test.
const SMALL_DISK: &str = "STRONGROOM_TEST_SMALL_DISK";
const PAGE: usize = 4096;
const DISK_BYTES: usize = 16 * PART;

/// A private disk of [`DISK_BYTES`].
struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    /// Fills the disk, except for `free_bytes`.
    fn fill_except(&self, free_bytes: usize) {
        self.delete_ballast();
        let used = self.used_bytes();
        let mut ballast = File::create(self.mount.join("ballast")).unwrap();
        ballast.write_all(&vec![7; (DISK_BYTES - used).saturating_sub(free_bytes)]).unwrap();
    }

    /// Frees the space that [`Self::fill_except`] used.
    fn delete_ballast(&self) {
        let _ = fs::remove_file(self.mount.join("ballast"));
    }

    /// Returns the space that the files of the store use, in whole pages.
    fn used_bytes(&self) -> usize {
        let pages = |bytes: u64| usize::try_from(bytes).unwrap().div_ceil(PAGE);
        // The service may have deleted a file since it was listed.
        let sizes = list_files(&self.store()).into_iter().filter_map(|file| file.metadata().ok());
        sizes.map(|found| pages(found.len())).sum::<usize>() * PAGE
    }

    /// Returns the space that objects and unfinished writes use, without the page of the owner marker.
    fn stored_bytes(&self) -> usize {
        self.used_bytes() - PAGE
    }

    fn store(&self) -> PathBuf {
        self.mount.join("store")
    }

    /// Lists the files of unfinished writes.
    fn list_unfinished_writes(&self) -> Vec<PathBuf> {
        list_files(&self.store().join("multipart"))
    }
}

fn list_files(directory: &Path) -> Vec<PathBuf> {
    let (mut directories, mut files) = (vec![fs::read_dir(directory).unwrap()], Vec::new());
    while let Some(entries) = directories.pop() {
        for path in entries.map(|entry| entry.unwrap().path()) {
            if !path.is_dir() {
                files.push(path);
            } else if let Ok(entries) = fs::read_dir(&path) {
                // Otherwise the service has deleted it since it was listed.
                directories.push(entries);
            }
        }
    }
    files
}

/// Runs a test against a service that stores its objects on a small disk. `name` is the name of the test
/// function.
fn with_small_disk<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Service, SmallDisk) -> Fut,
    Fut: Future<Output = ()>,
{
    let Some(mount) = std::env::var_os(SMALL_DISK) else { return reexecute_with_small_disk(name) };
    let disk = SmallDisk { mount: mount.into() };
    let root = disk.store();
    let configure =
        |setup: &mut crate::harness::Setup| setup.storage.adapter = AdapterOptions::Local { root };
    service_test_in(None, configure, |s| test(s, disk));
}

fn reexecute_with_small_disk(name: &str) {
    let mount = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={DISK_BYTES} none \"${SMALL_DISK}\" && exec \"$@\" --exact --nocapture disk::{name}"
    );
    let namespaces = ["-m", "-Urm"].into_iter().find(|flags| {
        let result = Command::new("unshare").args([flags, "true"]).stderr(Stdio::null()).status();
        result.is_ok_and(|status| status.success())
    });
    let namespaces = namespaces.expect(
        "failed to create a mount namespace with `unshare` (package util-linux); run as root, or allow user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1)",
    );
    let child = Command::new("unshare")
        .args([namespaces, "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, mount.path())
        .output()
        .unwrap();
    let output =
        String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

fn assert_storage_full(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "STORAGE_FULL"));
    assert!(status.get_error_details().retry_info().is_none(), "a retry does not free space");
}

async fn wait_for_clean_up(s: &Service, disk: &SmallDisk) {
    s.wait_until("clean up", || async {
        let reserved = "SELECT sum(reserved_bytes + reserved_file_count) FROM quotas";
        s.app.is_idle()
            && s.superuser.query_number(reserved).await == 0
            && disk.list_unfinished_writes().is_empty()
    })
    .await;
}

#[test]
fn upload_that_fills_disk_fails_and_frees_its_space() {
    let name = "upload_that_fills_disk_fails_and_frees_its_space";
    with_small_disk(name, |s, disk| async move {
        let alice = s.alice();
        let before = file_id(&alice.upload(spec("before"), &pattern(2 * PART)).await.unwrap());
        assert_storage_full(&alice.upload(spec("too large"), &pattern(20 * PART)).await.unwrap_err());
        wait_for_clean_up(&s, &disk).await;
        assert_eq!(disk.stored_bytes(), 2 * PART, "only the first file uses space");
        // The space of the failed upload is available again.
        alice.upload(spec("fits"), &pattern(10 * PART)).await.unwrap();
        assert_eq!(alice.read(&before).await.unwrap(), pattern(2 * PART));
    });
}

#[test]
fn disk_full_at_any_step_leaves_no_partial_file() {
    let name = "disk_full_at_any_step_leaves_no_partial_file";
    with_small_disk(name, |s, disk| async move {
        let alice = s.alice();
        alice.quota().await.unwrap();
        let mut stored_bytes = 0;
        for size in [10_000, 3 * PART + 100] {
            let pages = size.div_ceil(PAGE);
            for free_pages in (0..pages).step_by(5).chain([pages - 1, pages, pages + 1]) {
                disk.fill_except(free_pages * PAGE);
                let result = alice.upload(spec("a"), &pattern(size)).await;
                assert_eq!(
                    result.is_ok(),
                    free_pages >= pages,
                    "{size} bytes in {free_pages} pages: {result:?}"
                );
                match result {
                    Ok(uploaded) => {
                        assert_eq!(alice.read(&file_id(&uploaded)).await.unwrap(), pattern(size));
                        stored_bytes += pages * PAGE;
                    }
                    Err(status) => assert_storage_full(&status),
                }
                wait_for_clean_up(&s, &disk).await;
                assert_eq!(disk.stored_bytes(), stored_bytes, "{size} bytes in {free_pages} pages");
            }
        }
        disk.delete_ballast();
    });
}

#[test]
fn files_stay_readable_while_disk_is_full() {
    let name = "files_stay_readable_while_disk_is_full";
    with_small_disk(name, |s, disk| async move {
        let alice = s.alice();
        let existing = file_id(&alice.upload(spec("existing"), &pattern(PART)).await.unwrap());
        disk.fill_except(0);
        assert_eq!(s.store.check().await.unwrap_err().kind, StorageErrorKind::NoSpace);
        assert_storage_full(&alice.upload(spec("a"), b"ten bytes.").await.unwrap_err());
        assert_eq!(alice.read(&existing).await.unwrap(), pattern(PART), "existing files stay readable");
        disk.delete_ballast();
        s.store.check().await.unwrap();
        alice.upload(spec("a"), b"ten bytes.").await.unwrap();
    });
}
