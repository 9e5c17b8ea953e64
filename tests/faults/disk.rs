//! The disk of the local provider is full.
//!
//! Each test starts itself again in a mount namespace of its own, with a small disk in it that goes with the process. As
//! root that needs nothing more; others need user namespaces, as most systems allow them.

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

/// Set for the test within: the directory that the small disk is mounted on.
const SMALL_DISK: &str = "STRONGROOM_TEST_SMALL_DISK";
const PAGE: usize = 4096;
const DISK_BYTES: usize = 16 * PART;

/// A disk of [`DISK_BYTES`] that nobody else uses.
struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    /// Takes all room but so many bytes.
    fn leave(&self, free_bytes: usize) {
        self.free();
        // What cannot be written is not there: then the disk is as full as it gets.
        let used = self.used_bytes();
        let mut ballast = File::create(self.mount.join("ballast")).unwrap();
        ballast.write_all(&vec![7; (DISK_BYTES - used).saturating_sub(free_bytes)]).unwrap();
    }

    /// Gives back what was taken.
    fn free(&self) {
        let _ = fs::remove_file(self.mount.join("ballast"));
    }

    /// What the files of the store take, in whole pages.
    fn used_bytes(&self) -> usize {
        let pages = |file: &PathBuf| (file.metadata().unwrap().len() as usize).div_ceil(PAGE);
        files(&self.store()).iter().map(pages).sum::<usize>() * PAGE
    }

    fn store(&self) -> PathBuf {
        self.mount.join("store")
    }

    /// Files that are being written.
    fn unfinished(&self) -> Vec<PathBuf> {
        files(&self.store().join("multipart"))
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Runs the test of this name with a service whose bytes are on a small disk.
fn on_a_small_disk<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Service, SmallDisk) -> Fut,
    Fut: Future<Output = ()>,
{
    let Some(mount) = std::env::var_os(SMALL_DISK) else { return start_again_with_a_small_disk(name) };
    let disk = SmallDisk { mount: mount.into() };
    let root = disk.store();
    let arrange = |site: &mut crate::harness::Site| site.storage.adapter = AdapterOptions::Local { root };
    service_test_in(None, arrange, |s| test(s, disk));
}

fn start_again_with_a_small_disk(name: &str) {
    let mount = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={DISK_BYTES} none \"${SMALL_DISK}\" && exec \"$@\" --exact --nocapture disk::{name}"
    );
    let namespaces = ["-m", "-Urm"].into_iter().find(|flags| {
        let tried = Command::new("unshare").args([flags, "true"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    });
    let namespaces = namespaces.expect(
        "a small disk needs `unshare` (package util-linux) and a namespace to mount in: run as root, or allow user \
         namespaces (sysctl kernel.unprivileged_userns_clone=1)",
    );
    let within = Command::new("unshare")
        .args([namespaces, "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, mount.path())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&within.stdout).into_owned() + &String::from_utf8_lossy(&within.stderr);
    assert!(within.status.success() && said.contains("1 passed"), "{said}");
}

fn assert_full(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::Unavailable, "STORAGE_UNAVAILABLE"));
    assert!(status.get_error_details().retry_info().is_some());
}

async fn clean_up(s: &Service, disk: &SmallDisk) {
    s.until("clean up", || async {
        let reserved = "SELECT sum(reserved_bytes + reserved_file_count) FROM quotas";
        s.owner.number(reserved).await == 0 && disk.unfinished().is_empty()
    })
    .await;
}

#[test]
fn an_upload_that_fills_the_disk_is_refused_and_gives_its_room_back() {
    let name = "an_upload_that_fills_the_disk_is_refused_and_gives_its_room_back";
    on_a_small_disk(name, |s, disk| async move {
        let alice = s.alice();
        let before = file_id(&alice.upload(spec("before"), &pattern(2 * PART)).await.unwrap());
        assert_full(&alice.upload(spec("too large"), &pattern(20 * PART)).await.unwrap_err());
        clean_up(&s, &disk).await;
        assert_eq!(disk.used_bytes(), 2 * PART, "only the first file takes room");
        // All that the second one took can be used again.
        alice.upload(spec("fits"), &pattern(10 * PART)).await.unwrap();
        assert_eq!(alice.read(&before).await.unwrap(), pattern(2 * PART));
    });
}

#[test]
fn a_disk_that_fills_up_at_any_step_of_an_upload_leaves_nothing_half() {
    let name = "a_disk_that_fills_up_at_any_step_of_an_upload_leaves_nothing_half";
    on_a_small_disk(name, |s, disk| async move {
        let alice = s.alice();
        alice.quota().await.unwrap();
        let mut kept = 0;
        for size in [10_000, 3 * PART + 100] {
            let pages = size.div_ceil(PAGE);
            for free_pages in (0..pages).step_by(5).chain([pages - 1, pages, pages + 1]) {
                disk.leave(free_pages * PAGE);
                let answer = alice.upload(spec("a"), &pattern(size)).await;
                assert_eq!(
                    answer.is_ok(),
                    free_pages >= pages,
                    "{size} bytes in {free_pages} pages: {answer:?}"
                );
                match answer {
                    Ok(answer) => {
                        assert_eq!(alice.read(&file_id(&answer)).await.unwrap(), pattern(size));
                        kept += pages * PAGE;
                    }
                    Err(status) => assert_full(&status),
                }
                clean_up(&s, &disk).await;
                assert_eq!(disk.used_bytes(), kept, "{size} bytes in {free_pages} pages");
            }
        }
        disk.free();
    });
}

#[test]
fn a_full_disk_is_not_ready_and_is_again_when_room_was_made() {
    let name = "a_full_disk_is_not_ready_and_is_again_when_room_was_made";
    on_a_small_disk(name, |s, disk| async move {
        let alice = s.alice();
        let kept = file_id(&alice.upload(spec("kept"), &pattern(PART)).await.unwrap());
        disk.leave(0);
        assert_eq!(s.store.check().await.unwrap_err().kind, StorageErrorKind::NoSpace);
        assert_full(&alice.upload(spec("a"), b"ten bytes.").await.unwrap_err());
        assert_eq!(alice.read(&kept).await.unwrap(), pattern(PART), "what is there can be read");
        disk.free();
        s.store.check().await.unwrap();
        alice.upload(spec("a"), b"ten bytes.").await.unwrap();
    });
}
