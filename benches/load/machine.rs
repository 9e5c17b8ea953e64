//! The machine and the settings that the results depend on, printed with every report.

use std::{fs, thread};

use strongroom::domain::clock::{Clock as _, SystemClock};

use crate::{environment::Store, fixture::Fixture, sql};

/// Names and values.
pub(crate) type Facts = Vec<(&'static str, String)>;

pub(crate) async fn describe(fixture: &Fixture) -> Facts {
    let database = fixture.environment.instance(Store::Discard).database.url("postgres");
    let setting = |name: &'static str| {
        let url = database.clone();
        async move {
            let value = sql::query_value(&url, &format!("SHOW {name}")).await;
            format!("{name}={}", value.unwrap_or_else(|error| format!("unknown ({error})")))
        }
    };
    let forced = "SELECT count(*) FILTER (WHERE relforcerowsecurity) || ' of ' || count(*) || ' tables'
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
          AND relname <> '__diesel_schema_migrations'";
    let mut durable = Vec::new();
    for name in ["fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers"] {
        durable.push(setting(name).await);
    }
    vec![
        ("date", SystemClock.now().format("%Y-%m-%d %H:%M UTC").to_string()),
        ("machine", machine()),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("strongroom", version()),
        ("PostgreSQL", setting("server_version").await.replace("server_version=", "")),
        ("durability", durable.join(", ")),
        (
            "row-level security forced",
            sql::query_value(&database, forced).await.unwrap_or_else(|e| e.to_string()),
        ),
        ("audit, events, idempotency", "on: every upload carries a request id".to_owned()),
        ("scanning", "off".to_owned()),
        ("transport", "clear-text HTTP/2 over loopback; everything runs on this machine".to_owned()),
    ]
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let has = |flag: &str| if flags.split(' ').any(|has| has == flag) { "" } else { "no " };
    let memory = first_line("/proc/meminfo");
    let kibibytes: u64 =
        memory.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default();
    format!(
        "{} ({}SHA-NI, {}AVX-512), {} cores, {} GiB",
        field("model name").unwrap_or_else(|| "unknown CPU".to_owned()),
        has("sha_ni"),
        has("avx512f"),
        thread::available_parallelism().map_or(0, usize::from),
        (kibibytes + (1 << 19)) >> 20,
    )
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

fn version() -> String {
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{} ({})", env!("CARGO_PKG_VERSION"), commit.unwrap_or_else(|_| "unknown commit".to_owned()))
}
