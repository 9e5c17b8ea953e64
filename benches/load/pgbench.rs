//! The database baseline: pgbench inserts the rows of one small file per transaction, as the service role,
//! under the row-level security of a tenant, with prepared and pipelined statements. There is no validation,
//! no response and no batching: this is the minimum cost of a file as one transaction.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::{
    Outcome,
    client::{self, Content, request_id},
    commit_rows,
    database::{APP_LOGIN, TestDatabase},
    environment::{Environment, Store},
    meter::{Meter, Sample},
    row::Tenants,
    sql,
};

/// The id of the tenant with the number `:t`.
const TENANT: &str = "('00000000-0000-7000-8000-' || lpad(:t::text, 12, '0'))";

pub(crate) struct Pgbench {
    program: PathBuf,
    database: TestDatabase,
    many: PathBuf,
    one: PathBuf,
}

impl Pgbench {
    /// Creates a database with tenants, and the scripts. A service uploads one file with this content, whose
    /// rows the scripts repeat.
    pub(crate) async fn prepare(
        environment: &Environment,
        tenants: usize,
        content: &Content,
    ) -> Outcome<Self> {
        let program = find_pgbench()?;
        let instance = environment.start_instance(Store::Discard, "pgbench").await?;
        let mut files = client::connect(&instance.service.grpc).await?;
        let (token, request) = (client::bearer(&environment.token("template"))?, request_id());
        let file_id = client::upload(&mut files, &token, content, request.clone()).await?;
        drop((files, instance.service));
        let database = instance.database;
        let url = database.superuser_url();
        let insert =
            commit_rows::insert_statement(&url, &file_id, &request, &format!("{TENANT}::uuid"), &new_id())
                .await?;
        sql::execute(&url, &insert_tenants_sql(tenants)).await?;
        let transaction = transaction_sql(&insert, content.size_bytes());
        // Reports a rejected statement better than pgbench does.
        sql::execute(&database.url(APP_LOGIN), &transaction.replace(":t::text", "0::text")).await?;
        let (many, one) = (environment.path("pgbench.many.sql"), environment.path("pgbench.one.sql"));
        let script = |tenant: &str| format!("{tenant}\n\\startpipeline\n{transaction}\n\\endpipeline\n");
        std::fs::write(&many, script(&format!("\\set t random(1, {})", tenants - 1)))?;
        std::fs::write(&one, script("\\set t 0"))?;
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
        let figures = (figure("number of transactions actually processed: "), figure("tps = "));
        let (true, (Some(done), Some(rate))) = (output.status.success(), figures) else {
            return Err(format!(
                "pgbench failed ({}):\n{output_text}{}",
                output.status,
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

/// Finds pgbench beside the PostgreSQL programs, or else on the path.
fn find_pgbench() -> Outcome<PathBuf> {
    let directories = env::var_os("STRONGROOM_POSTGRES_BIN").into_iter().map(PathBuf::from);
    let directories: Vec<_> =
        directories.chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())).collect();
    let found = directories.iter().map(|directory| directory.join("pgbench")).find(|path| path.exists());
    found.ok_or_else(|| {
        "this PostgreSQL has no pgbench, and there is none on the path; install PostgreSQL as a package, or set \
         STRONGROOM_POSTGRES_BIN to a directory that contains it"
            .into()
    })
}

/// Returns the SQL that copies the tenant of the template and its quota, with numbers as ids.
fn insert_tenants_sql(tenants: usize) -> String {
    let id = TENANT.replace(":t::text", "t::text");
    format!(
        "CREATE TEMPORARY TABLE template AS SELECT * FROM tenants WHERE external_id = 'template';
         INSERT INTO tenants
         SELECT copy.* FROM template, generate_series(0, {tenants} - 1) AS t, LATERAL jsonb_populate_record(
             NULL::tenants, to_jsonb(template) || jsonb_build_object('id', {id}, 'external_id', t::text)) AS copy;
         INSERT INTO quotas
         SELECT copy.* FROM template JOIN quotas AS q ON q.tenant_id = template.id, generate_series(0, {tenants} - 1) AS t,
             LATERAL jsonb_populate_record(NULL::quotas, to_jsonb(q) || jsonb_build_object('tenant_id', {id})) AS copy"
    )
}

/// Returns an expression for a new version 7 UUID.
fn new_id() -> String {
    const STAMP: &str = "lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')";
    format!(
        "({STAMP} || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid"
    )
}

/// Returns the transaction that inserts the rows of one upload and charges its bytes to the quota.
fn transaction_sql(insert: &str, size_bytes: u64) -> String {
    format!(
        "BEGIN;
SELECT set_config('app.tenant_id', {TENANT}, true), set_config('app.user_id', '', true),
    set_config('app.audience_min', '1', true), set_config('app.principals', '', true);
{insert};
UPDATE quotas SET used_bytes = used_bytes + {size_bytes}, file_count = file_count + 1
WHERE tenant_id = {TENANT}::uuid AND used_bytes + reserved_bytes + {size_bytes} <= limit_bytes;
COMMIT;"
    )
}
