//! A service behind a real PgBouncer in transaction mode, which gives each transaction another connection of the
//! server. PgBouncer before 1.21 does not carry prepared statements over.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};

use futures::future::join_all;
use strongroom::{
    db::{Database, PoolerError},
    proto::v1::{CopyFileRequest, ListFilesRequest, UploadSpec},
};

use crate::{
    database_errors::{fail_changes, permit_changes},
    harness::{
        Caller, PART, Service, database_options, file_id, pattern, reason, service_test_in, spec,
        test_server_url,
    },
};

/// More callers than PgBouncer has connections of the server.
const CALLERS: usize = 12;
const SERVER_CONNECTIONS: usize = 3;

/// A running PgBouncer. Dropping it stops the program.
struct PgBouncer {
    program: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts PgBouncer in front of the server that all tests share.
    fn start() -> Self {
        let sockets = PathBuf::from(test_server_url().host_str().unwrap().replace("%2F", "/"));
        // Another process may take the free port before PgBouncer listens on it.
        (0..5).find_map(|_| Self::try_start(&sockets)).expect("PgBouncer did not start")
    }

    fn try_start(sockets: &Path) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("strongroom-bouncer-").tempdir_in("/tmp").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let users = directory.path().join("users");
        std::fs::write(&users, "\"strongroom_test_app\" \"\"\n\"strongroom_test_system\" \"\"\n").unwrap();
        let settings = directory.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={} port=5432\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 200\n",
            sockets.display(),
            address.port(),
            users.display(),
        );
        std::fs::write(&settings, text).unwrap();
        let mut command = Command::new(find_program());
        command.arg(&settings).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        // PgBouncer refuses to run as root. The user of the PostgreSQL server can open its socket.
        let owner = std::fs::metadata(sockets).unwrap();
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            std::os::unix::fs::chown(directory.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        let mut program = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(program.stderr.take().unwrap()).lines();
        let is_up = log.by_ref().map_while(Result::ok).any(|line| line.contains("process up"));
        // The log ends without that line if the program exits.
        if !is_up {
            program.wait().unwrap();
            return None;
        }
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Some(Self { program, address, _directory: directory })
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn find_program() -> PathBuf {
    if let Some(program) = std::env::var_os("STRONGROOM_PGBOUNCER_BIN") {
        return program.into();
    }
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup/pgbouncer");
    let output = Command::new(setup).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{setup} failed");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Runs a test against a service that connects through PgBouncer without keeping prepared statements.
fn with_pgbouncer<F, Fut>(test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    let bouncer = Arc::new(OnceLock::new());
    let started = bouncer.clone();
    service_test_in(
        None,
        move |setup| {
            setup.config.database.prepared_statements = false;
            let bouncer: &PgBouncer = started.get_or_init(PgBouncer::start);
            setup.database_addresses = Some([bouncer.address; 2]);
        },
        test,
    );
    drop(bouncer);
}

/// Calls the methods that most requests use, in the life of three files. Every call must succeed.
async fn use_files(caller: Caller, number: usize) {
    let request_id = uuid::Uuid::from_u128(number as u128 + 1).to_string();
    let named = UploadSpec { request_id, tags: vec!["tag".to_owned()], ..spec(&format!("{number}.txt")) };
    let small = file_id(&caller.upload(named.clone(), b"small").await.unwrap());
    assert_eq!(file_id(&caller.upload(named, b"small").await.unwrap()), small, "a retry has one effect");
    let large = file_id(&caller.upload(spec("large"), &pattern(3 * PART + 7)).await.unwrap());
    assert_eq!(caller.read(&large).await.unwrap(), pattern(3 * PART + 7));

    let upload =
        caller.create_upload(UploadSpec { size_bytes: Some(PART as i64), ..spec("resumed") }).await.unwrap();
    caller.upload_part(&upload.id, 0, &pattern(PART)).await.unwrap();
    caller.complete_upload(&upload.id, PART).await.unwrap();

    caller.rename(&small, "renamed").await.unwrap();
    assert_eq!(caller.get(&small).await.unwrap().name, "renamed");
    caller.upload_version(&small, b"second").await.unwrap();
    caller.restore_version(&small, 1).await.unwrap();
    assert_eq!(caller.read(&small).await.unwrap().as_ref(), b"small");
    let copy = CopyFileRequest { file_id: small.clone(), ..CopyFileRequest::default() };
    let copy = caller.copy(copy).await.unwrap().id;
    caller.delete(&copy).await.unwrap();
    caller.undelete(&copy).await.unwrap();
    caller.archive(&copy).await.unwrap();
    caller.unarchive(&copy).await.unwrap();
    let list = caller.list(ListFilesRequest { page_size: 5, ..ListFilesRequest::default() }).await.unwrap();
    assert!(!list.files.is_empty());
    caller.quota().await.unwrap();
    caller.usage().await.unwrap();
    caller.purge(&large).await.unwrap();
}

#[test]
fn twelve_callers_work_through_pgbouncer() {
    with_pgbouncer(|s| async move {
        s.db.check_pooler().await.unwrap();
        let callers = (0..CALLERS).map(|number| match number % 2 {
            0 => s.member(&format!("user{number}"), "acme", "member", &[]),
            _ => s.member(&format!("user{number}"), "globex", "member", &[]),
        });
        join_all(callers.enumerate().map(|(number, caller)| use_files(caller, number))).await;
        assert_eq!(strongroom::worker::run_round(&s.app).await.failed, 0);
    });
}

#[test]
fn pooler_without_prepared_statements_is_refused() {
    with_pgbouncer(|s| async move {
        let mut options = database_options(&strongroom::config::Config::defaults().unwrap(), &s.database);
        options.prepared_statements = true;
        let refused = Database::open(&options).unwrap().check_pooler().await.unwrap_err();
        assert!(matches!(refused, PoolerError::LosesStatements { url_key: "database.url" }), "{refused}");
        assert!(refused.to_string().contains("database.prepared_statements = false"), "{refused}");

        // Without a pooler, the same options are accepted.
        let mut direct = s.database.clone();
        direct.addresses = None;
        let options = database_options(&strongroom::config::Config::defaults().unwrap(), &direct);
        Database::open(&options).unwrap().check_pooler().await.unwrap();
    });
}

#[test]
fn session_after_the_check_has_no_leftover_statement() {
    with_pgbouncer(|s| async move {
        let mut options = database_options(&strongroom::config::Config::defaults().unwrap(), &s.database);
        options.prepared_statements = true;
        Database::open(&options).unwrap().check_pooler().await.unwrap_err();
        // Names of statements are unique in a process, so a statement that is left would only fail another
        // process. The view shows it in the session.
        let app = s.database.connect_as_app().await;
        let left = app.simple_query("SELECT name FROM pg_prepared_statements").await.unwrap();
        let is_row = |message: &&tokio_postgres::SimpleQueryMessage| {
            matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))
        };
        assert_eq!(left.iter().filter(is_row).count(), 0, "{left:?}");
    });
}

#[test]
fn errors_keep_their_code_through_pgbouncer() {
    with_pgbouncer(|s| async move {
        let alice = s.alice();
        let file = file_id(&alice.upload(spec("a"), b"a").await.unwrap());
        fail_changes(&s, "53100", "kein Speicherplatz mehr verfügbar").await;
        let error = alice.rename(&file, "b").await.unwrap_err();
        assert_eq!(reason(&error), "STORAGE_FULL", "{error:?}");
        permit_changes(&s).await;
        alice.rename(&file, "b").await.unwrap();
    });
}
