//! The database baseline: pgbench inserts the rows of one small file per transaction, as the service role,
//! under the row-level security of a tenant, with prepared and pipelined statements. There is no validation,
//! no response and no batching: this is the minimum cost of a file as one transaction.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::{
    Outcome,
    database::{APP_LOGIN, TestDatabase},
    environment::Environment,
    meter::{Meter, Sample},
    row::Tenants,
    sql,
};

pub(crate) struct Pgbench {
    program: PathBuf,
    database: TestDatabase,
    many: PathBuf,
    one: PathBuf,
}

impl Pgbench {
    pub(crate) async fn prepare(environment: &Environment, tenants: usize) -> Outcome<Self> {
        let bin = std::env::var("STRONGROOM_POSTGRES_BIN").unwrap_or_default();
        let program = PathBuf::from(bin).join("pgbench");
        if !program.exists() {
            let message =
                "this PostgreSQL has no pgbench; set STRONGROOM_POSTGRES_BIN to one that includes it";
            return Err(message.into());
        }
        let database = TestDatabase::create_migrated("load_pgbench").await;
        sql::execute(&database.url("postgres"), &insert_tenants_sql(tenants)).await?;
        let (many, one) = (environment.path("pgbench.many.sql"), environment.path("pgbench.one.sql"));
        std::fs::write(&many, pgbench_script(&format!("\\set t random(1, {})", tenants - 1)))?;
        std::fs::write(&one, pgbench_script("\\set t 0"))?;
        Ok(Self { program, database, many, one })
    }

    /// Runs `clients` clients for the duration of `window`.
    pub(crate) async fn run(
        &self,
        environment: &Environment,
        window: Duration,
        clients: usize,
        tenants: Tenants,
    ) -> Outcome<Sample> {
        let script = if tenants == Tenants::Many { &self.many } else { &self.one };
        let mut command = Command::new(&self.program);
        command.arg("--no-vacuum").arg("--protocol=prepared").arg("--file").arg(script);
        command.args([format!("--client={clients}"), format!("--time={}", window.as_secs())]);
        command.arg(format!("--jobs={}", clients.min(2))).arg(self.database.url(APP_LOGIN));
        let meter = Meter::start(environment, None, None);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let used = meter.measure_usage(environment);
        let output_text = String::from_utf8_lossy(&output.stdout);
        let figure = |name: &str| {
            let line = output_text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let (Some(done), Some(rate)) =
            (figure("number of transactions actually processed: "), figure("tps = "))
        else {
            return Err(format!(
                "unexpected output of pgbench:  {output_text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
            .into());
        };
        Ok(Sample { rate, ..used.sample(done, done / 1000.0) })
    }

    pub(crate) async fn close(self) {
        self.database.drop_database().await;
    }
}

/// Returns the SQL that inserts tenants with numbers as ids.
fn insert_tenants_sql(tenants: usize) -> String {
    format!(
        "INSERT INTO tenants (id, kind, issuer, external_id, policy, create_time)
         SELECT ('00000000-0000-7000-8000-' || lpad(t::text, 12, '0'))::uuid, 1, 'pgbench', t::text, '{{}}', now()
         FROM generate_series(0, {tenants} - 1) AS t;
         INSERT INTO quotas (tenant_id, limit_bytes, file_count_max, warning_percent, critical_percent, image_bytes_max,
            video_bytes_max, audio_bytes_max, document_bytes_max, other_bytes_max, ceiling_bytes, ceiling_file_count,
            update_time)
         SELECT id, 1::bigint << 50, 0, 80, 95, 1, 1, 1, 1, 1, 1::bigint << 50, 0, now() FROM tenants"
    )
}

/// Returns the pgbench script that inserts the rows of one upload: response under its request id, blob, file,
/// version, audit entry, event, usage counter, quota.
fn pgbench_script(tenant: &str) -> String {
    const STAMP: &str = "lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')";
    let id = format!(
        "({STAMP} || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid"
    );
    let tenant_id = "('00000000-0000-7000-8000-' || lpad(:t::text, 12, '0'))";
    format!(
        "{tenant}
\\startpipeline
BEGIN;
SELECT set_config('app.tenant_id', {tenant_id}, true), set_config('app.user_id', '', true),
    set_config('app.audience_min', '1', true), set_config('app.principals', '', true);
WITH ids AS MATERIALIZED (
    SELECT {tenant_id}::uuid AS tenant, {id} AS file, {id} AS blob, {id} AS request, sha256('x') AS sha
), blob AS (
    INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
    SELECT tenant, blob, 'local', tenant || '/media_resource/2026/11/20/' || blob, 10240, sha, '12345678', app.now()
    FROM ids
), file AS (
    INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
        description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
        media_kind, size_bytes, sha256, create_time, update_time)
    SELECT tenant, file, 'loader', 'loader', 'loader', 'load.bin', 'load.bin', 'media_resource', '', '', '{{}}', 3, 1, 2,
        1, 'application/octet-stream', '', 5, 10240, sha, app.now(), app.now() FROM ids
), version AS (
    INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
        declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time)
    SELECT tenant, file, 1, blob, 2, 1, 'application/octet-stream', '', 5, 10240, sha, 'loader', app.now() FROM ids
), audit AS (
    INSERT INTO audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version,
        request_id, address, details)
    SELECT tenant, app.now(), 1, 'loader', 1, true, file, 1, request::text, '127.0.0.1', '{{}}' FROM ids
), event AS (
    INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id)
    SELECT tenant, app.now(), 1, file, 1, 'loader' FROM ids
), answer AS (
    INSERT INTO idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, response)
    SELECT tenant, request, app.now(), 1, sha, jsonb_build_object('file', repeat('x', 1000)) FROM ids
)
INSERT INTO usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
SELECT tenant, 'media_resource', 5, 1, 10240 FROM ids
ON CONFLICT (tenant_id, category, media_kind) DO UPDATE
SET file_count = counter.file_count + 1, total_bytes = counter.total_bytes + 10240;
UPDATE quotas SET used_bytes = used_bytes + 10240, file_count = file_count + 1
WHERE tenant_id = {tenant_id}::uuid AND used_bytes + reserved_bytes + 10240 <= limit_bytes;
COMMIT;
\\endpipeline
"
    )
}
