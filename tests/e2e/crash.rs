//! kill -9 of the service, its database and its object store at random moments of a mixed load, then a sweep.

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
/// With STRONGROOM_TEST_FULL=1.
const KILLS_FULL: u64 = 500;
/// Something dies after at most so many bytes of a round were sent.
const KILL_AFTER_BYTES_MAX: u64 = 10 << 20;
/// How long leftovers may take to be swept: the lease of the uploads, and a few rounds.
const SWEPT_WITHIN: Duration = Duration::from_secs(180);

/// What is killed in one round, together.
#[derive(Debug, Clone, Copy)]
struct Victims {
    service: bool,
    database: bool,
    store: bool,
}

impl Victims {
    /// One of the three mostly, sometimes two or all.
    fn of(dice: u64) -> Self {
        let is_one_of = |sides: &[u64]| sides.contains(&(dice % 8));
        Self {
            service: is_one_of(&[0, 1, 6, 7]),
            database: is_one_of(&[2, 3, 6, 7]),
            store: is_one_of(&[4, 5, 7]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_at_random_loses_nothing_acknowledged_and_what_it_leaves_is_swept() {
    let kills = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { KILLS_FULL } else { KILLS };
    let (postgres, mut garage) = (Postgres::start().await, Garage::start().await);
    let database = TestDatabase::migrated_in(&postgres.url(), "crash").await;
    let site = Site::with(database)
        .set("STRONGROOM_UPLOADS__PART_SIZE_BYTES", PART)
        .set("STRONGROOM_UPLOADS__LEASE_SECONDS", 10)
        .set("STRONGROOM_UPLOADS__IDLE_TIMEOUT_SECONDS", 9)
        .set("STRONGROOM_RETENTION__UNDELETE_WINDOW_HOURS", 0)
        .set_all(garage.settings());
    let mut load = MixedLoad::new();
    let mut random = Random(0x5EED_0002);
    let mut server = site.serve().await;
    for _ in 0..kills {
        load.up(site.client(&server, "alice").await);
        load.after_bytes(random.next() % KILL_AFTER_BYTES_MAX).await;
        load.down();
        let victims = Victims::of(random.next());
        server = kill(victims, &site, &postgres, &mut garage, server).await;
    }
    load.up(site.client(&server, "alice").await);
    load.end().await;
    let (acknowledged, gone) = load.check(&site.client(&server, "alice").await).await;
    assert!(
        acknowledged > 20 && gone > 5,
        "{acknowledged} acknowledged, {gone} gone: too little was going on"
    );
    server.kill().await;

    sweep_until_clean(&site).await;
    let (is_clean, report) = site.fsck(&["--deep", "--grace-seconds", "0"]).await;
    assert!(is_clean, "{report:#}");
    assert_eq!(report["blobs"], report["hashed_blobs"]);

    let server = site.serve().await;
    let client = site.client(&server, "alice").await;
    let quota = client.get_quota(GetQuotaRequest::default()).await.unwrap().quota.unwrap();
    assert_eq!(quota.reserved_bytes, 0);
    server.kill().await;
}

/// Kills, and starts again what was killed.
async fn kill(
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
    let left = if victims.service {
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
    match left {
        Some(server) => server,
        None => site.serve().await,
    }
}

/// The service is stopped, so nothing that is here now belongs to anything that will be: a grace period of a second does.
async fn sweep_until_clean(site: &Site) {
    let mut last = Value::Null;
    let swept = async {
        loop {
            let (code, reports) =
                site.run(&["sweep", "--json", "--grace-seconds", "1", "--service-is-stopped"]).await;
            assert_eq!(code, Some(0), "{reports:#}");
            let is_done = reports.as_array().unwrap().iter().all(is_clean);
            last = reports;
            if is_done {
                return;
            }
        }
    };
    let swept = tokio::time::timeout(SWEPT_WITHIN, swept).await;
    assert!(swept.is_ok(), "leftovers were not swept, says the last round: {last:#}");
}

/// Nothing was done in this round, and nothing is left to do: no upload waits for its lease to run out, either.
fn is_clean(report: &Value) -> bool {
    let counts = ["/found/count", "/removed/count", "/waiting/count", "/expired_uploads", "/skipped_young"];
    let is_zero = |place: &str| report.pointer(place).and_then(Value::as_u64) == Some(0);
    counts.into_iter().all(is_zero)
        && is_zero("/open_uploads")
        && is_zero("/listed_multiparts")
        && is_zero("/skipped_foreign")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_period_that_uploads_do_not_know_of_is_refused() {
    let site = Site::new("grace").await;
    let output = site.command(&["sweep", "--grace-seconds", "60"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--service-is-stopped"), "{said}");
    let (code, reports) = site.run(&["sweep", "--grace-seconds", "60", "--dry-run", "--json"]).await;
    assert_eq!((code, is_clean(&reports[0])), (Some(0), true), "{reports}");
    site.close().await;
}
