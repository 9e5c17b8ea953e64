//! Kills the service, its database and its object store with SIGKILL at random points of a mixed load, then
//! sweeps.

use std::time::Duration;

use serde_json::Value;
use strongroom::proto::v1::GetQuotaRequest;

use crate::{
    database::TestDatabase,
    garage::Garage,
    mixed_load::{MixedLoad, PART, Random},
    postgres::Postgres,
    server::{Server, Site},
};

const KILLS: u64 = 50;
/// The number of kills with `STRONGROOM_TEST_FULL=1`.
const KILLS_FULL: u64 = 500;
/// The maximum number of bytes that are sent in a round before the kill.
const KILL_AFTER_BYTES_MAX: u64 = 10 << 20;
/// The maximum time for the sweeps: the lease of the uploads, and a few rounds.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(180);

/// The processes that are killed together in one round.
#[derive(Debug, Clone, Copy)]
struct Victims {
    service: bool,
    database: bool,
    store: bool,
}

impl Victims {
    /// Selects one process in most rounds, and sometimes two or all three.
    fn choose(random: u64) -> Self {
        let is_one_of = |values: &[u64]| values.contains(&(random % 8));
        Self {
            service: is_one_of(&[0, 1, 6, 7]),
            database: is_one_of(&[2, 3, 6, 7]),
            store: is_one_of(&[4, 5, 7]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_files_survive_random_kills() {
    let kills = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { KILLS_FULL } else { KILLS };
    let (postgres, mut garage) = (Postgres::start().await, Garage::start().await);
    let database = TestDatabase::create_migrated_in(&postgres.url(), "crash").await;
    let site = Site::with_database(database)
        .set("STRONGROOM_UPLOADS__PART_SIZE_BYTES", PART)
        .set("STRONGROOM_UPLOADS__LEASE_SECONDS", 10)
        .set("STRONGROOM_UPLOADS__IDLE_TIMEOUT_SECONDS", 9)
        .set("STRONGROOM_RETENTION__BLOB_DELETION_DELAY_HOURS", 0)
        .set_all(garage.settings());
    let mut load = MixedLoad::new();
    let mut random = Random(0x5EED_0002);
    let mut server = site.start_server().await;
    for _ in 0..kills {
        load.connect(site.client(&server, "alice").await);
        load.wait_for_bytes(random.next() % KILL_AFTER_BYTES_MAX).await;
        load.disconnect();
        let victims = Victims::choose(random.next());
        server = kill_and_restart(victims, &site, &postgres, &mut garage, server).await;
    }
    load.connect(site.client(&server, "alice").await);
    load.finish().await;
    let (acknowledged, deleted) = load.verify(&site.client(&server, "alice").await).await;
    assert!(
        acknowledged > 20 && deleted > 5,
        "too little load: {acknowledged} files acknowledged, {deleted} deleted"
    );
    server.kill().await;

    // Without this command, deletions would wait, because the database server was restarted.
    let (code, adopted) = site.run_json(&["storage", "adopt", "--yes", "--json"]).await;
    assert_eq!(code, Some(0), "{adopted}");
    sweep_until_clean(&site).await;
    let (is_clean, report) = site.run_fsck(&["--deep", "--grace-seconds", "0"]).await;
    assert!(is_clean, "{report:#}");
    assert_eq!(report["blobs"], report["hashed_blobs"]);

    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    let quota = client.get_quota(GetQuotaRequest::default()).await.unwrap().quota.unwrap();
    assert_eq!(quota.reserved_bytes, 0);
    server.kill().await;
}

/// Kills the chosen processes and starts them again.
async fn kill_and_restart(
    victims: Victims,
    site: &Site,
    postgres: &Postgres,
    garage: &mut Garage,
    server: Server,
) -> Server {
    if victims.database {
        postgres.kill();
    }
    if victims.store {
        garage.kill().await;
    }
    let running = if victims.service {
        server.kill().await;
        None
    } else {
        Some(server)
    };
    if victims.database {
        postgres.restart().await;
    }
    if victims.store {
        garage.restart().await;
    }
    match running {
        Some(server) => server,
        None => site.start_server().await,
    }
}

/// Sweeps until nothing is left. The service is stopped, so no object belongs to an upload in progress and a
/// grace period of one second is enough.
async fn sweep_until_clean(site: &Site) {
    let mut last = Value::Null;
    let swept = async {
        loop {
            let (code, reports) =
                site.run_json(&["sweep", "--json", "--grace-seconds", "1", "--service-is-stopped"]).await;
            assert_eq!(code, Some(0), "{reports:#}");
            let is_done = reports.as_array().unwrap().iter().all(is_clean);
            last = reports;
            if is_done {
                return;
            }
        }
    };
    let swept = tokio::time::timeout(SWEEP_TIMEOUT, swept).await;
    assert!(swept.is_ok(), "the stores are not clean after the last sweep: {last:#}");
}

/// Returns whether a sweep did nothing and left nothing to do, including uploads whose lease has not expired.
fn is_clean(report: &Value) -> bool {
    let counts = ["/found/count", "/deleted/count", "/waiting/count", "/expired_uploads", "/skipped_young"];
    let is_zero = |place: &str| report.pointer(place).and_then(Value::as_u64) == Some(0);
    counts.into_iter().all(is_zero)
        && is_zero("/open_uploads")
        && is_zero("/listed_multiparts")
        && is_zero("/skipped_foreign")
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_rejects_short_grace_period() {
    let site = Site::new("grace").await;
    let output = site.command(&["sweep", "--grace-seconds", "60"]).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("--service-is-stopped"), "{error}");
    let (code, reports) = site.run_json(&["sweep", "--grace-seconds", "60", "--dry-run", "--json"]).await;
    assert_eq!((code, is_clean(&reports[0])), (Some(0), true), "{reports}");
    site.close().await;
}
