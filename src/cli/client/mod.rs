//! The commands that talk to a server, wherever it runs.

mod connection;
pub(super) mod exit;
mod failure;
mod get;
mod human;
mod import;
mod ls;
mod output;
mod partial_file;
mod put;
mod quota;
mod records;
mod rm;
mod safe_name;
mod standard_streams;
mod started;
mod tenant_records;
mod tenants;
mod transfer_ownership;
mod versions;
mod watch;

use clap::Subcommand;

use self::{exit::Exit, failure::Failure, output::Output};

/// `strongroom put|get|ls|rm|undelete|versions|watch|import|quota|transfer-ownership|tenants`.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Upload files
    Put(Box<put::PutArgs>),
    /// Download a file, or a part of it
    Get(Box<get::GetArgs>),
    /// List files
    Ls(Box<ls::LsArgs>),
    /// Move files to the trash, or remove them for good
    Rm(rm::RmArgs),
    /// Take files out of the trash
    Undelete(rm::UndeleteArgs),
    /// List the versions of a file, restore or remove one
    #[command(subcommand)]
    Versions(versions::VersionsCommand),
    /// Print changes of files as they happen
    Watch(watch::WatchArgs),
    /// Take over files of before, and tell which file each became; for a tenant's admins
    Import(Box<import::ImportArgs>),
    /// Show what a tenant may store and what it stores, or set its limits
    Quota(quota::QuotaArgs),
    /// Give the files of someone who leaves to someone else; for a tenant's admins
    TransferOwnership(transfer_ownership::TransferArgs),
    /// Create, suspend, export and delete tenants; for operators
    Tenants(Box<tenants::TenantsArgs>),
}

impl ClientCommand {
    fn output(&self) -> Output {
        let json = match self {
            Self::Put(args) => args.json,
            Self::Get(args) => args.json,
            Self::Ls(args) => args.json,
            Self::Rm(args) => args.json,
            Self::Undelete(args) => args.json,
            Self::Versions(command) => command.json(),
            Self::Watch(args) => args.json,
            Self::Import(args) => args.json,
            Self::Quota(args) => args.json,
            Self::TransferOwnership(args) => args.json,
            Self::Tenants(args) => args.target().json,
        };
        Output { json }
    }

    async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Put(args) => put::run(*args, output).await,
            Self::Get(args) => get::run(*args, output).await,
            Self::Ls(args) => ls::run(*args, output).await,
            Self::Rm(args) => rm::rm(args, output).await,
            Self::Undelete(args) => rm::undelete(args, output).await,
            Self::Versions(command) => versions::run(command, output).await,
            Self::Watch(args) => watch::run(args, output).await,
            Self::Import(args) => import::run(*args, output).await,
            Self::Quota(args) => quota::run(args, output).await,
            Self::TransferOwnership(args) => transfer_ownership::run(args, output).await,
            Self::Tenants(args) => tenants::run(*args, output).await,
        }
    }
}

/// Runs one command and reports its failure.
///
/// Ctrl-C drops the command, so that an unfinished download takes its hidden file along. A read of standard
/// input cannot be called back: shut the runtime down in the background, or it waits for a line that nobody
/// writes.
pub(super) async fn run(command: ClientCommand) -> Exit {
    let output = command.output();
    let ended = tokio::select! {
        ended = command.run(output) => ended,
        Ok(()) = tokio::signal::ctrl_c() => return Exit::Interrupted,
    };
    match ended {
        Ok(()) => Exit::Ok,
        Err(failure) if failure.is_broken_pipe() => Exit::Ok,
        Err(failure) => {
            output.report(&failure);
            failure.exit()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::client::{
        Code,
        fake_service::{FakeServer, download_of},
    };

    #[derive(Parser)]
    struct Strongroom {
        #[command(subcommand)]
        command: ClientCommand,
    }

    /// Runs `strongroom` with these arguments against the fake server.
    async fn strongroom(server: &FakeServer, arguments: &[&str]) -> Exit {
        let connection = ["--server", &server.endpoint, "--token", "alice"];
        let arguments = ["strongroom"].iter().chain(arguments).chain(&connection);
        run(Strongroom::try_parse_from(arguments).unwrap().command).await
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_arguments_make_sense() {
        Strongroom::command().debug_assert();
    }

    #[tokio::test]
    async fn a_download_lands_under_a_safe_name_and_alone() {
        let server = FakeServer::start().await;
        server.will_send(download_of("../../.evil\n.txt", b"harmless", 3));
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().to_str().unwrap();
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Ok);
        assert_eq!(names_in(directory.path()), ["evil_.txt"]);
        assert_eq!(fs::read(directory.path().join("evil_.txt")).unwrap(), b"harmless");
    }

    #[tokio::test]
    async fn a_download_that_fails_leaves_nothing_behind() {
        let server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().to_str().unwrap();

        let mut damaged = download_of("a.txt", b"harmless", 3);
        damaged.pop();
        server.will_send(damaged.clone());
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Corrupted);

        server.will_send(damaged);
        server.script.lock().unwrap().fail_after_download(Code::DataLoss);
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Corrupted);
        assert!(names_in(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn a_file_that_exists_is_replaced_only_by_force() {
        let server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        let to = path.to_str().unwrap();
        fs::write(&path, "mine").unwrap();
        server.will_send(download_of("b.txt", b"theirs", 3));

        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Usage);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to, "--force"]).await, Exit::Ok);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(strongroom(&server, &["get", "0198", "-o", "/dev/null", "--force"]).await, Exit::Usage);
        assert_eq!(names_in(directory.path()), ["a.txt"]);
    }

    #[tokio::test]
    async fn one_bad_file_does_not_hold_up_the_others() {
        let mut server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good.txt");
        fs::write(&good, "good").unwrap();
        let missing = directory.path().join("missing.txt");
        let files = [missing.to_str().unwrap(), good.to_str().unwrap()];
        assert_eq!(strongroom(&server, &["put", files[0], files[1]]).await, Exit::Other);
        assert!(server.uploads.recv().await.is_some(), "the good one arrived");

        let both = ["put", files[0], files[1], "--name", "one name"];
        assert_eq!(strongroom(&server, &both).await, Exit::Usage);
        assert_eq!(strongroom(&server, &["put", "-"]).await, Exit::Usage);
    }

    #[tokio::test]
    async fn an_import_sends_all_that_is_named_and_fails_where_an_item_did() {
        let server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old.csv");
        fs::write(&path, "key,legacy_id,owner,category\nc,7,ann,\nd,,,avatar\n").unwrap();
        let manifest = path.to_str().unwrap();
        let all = ["import", "old", "--key", "a", "--url", "https://b.test/b", "--manifest", manifest];
        let defaults = ["--category", "report", "--owner", "bob", "--dry-run"];
        assert_eq!(strongroom(&server, &[&all[..], &defaults].concat()).await, Exit::Ok);
        let (options, items) = server.script.lock().unwrap().imports.pop().unwrap();
        assert_eq!((options.source.as_str(), options.dry_run), ("old", true));
        let said: Vec<_> = items
            .iter()
            .map(|item| (item.owner_id.as_str(), item.spec.as_ref().unwrap().category.as_str()))
            .collect();
        assert_eq!(said, [("bob", "report"), ("bob", "report"), ("ann", "report"), ("bob", "avatar")]);

        assert_eq!(strongroom(&server, &["import", "old", "--key", "a", "--key", "bad"]).await, Exit::Other);
        assert_eq!(strongroom(&server, &["import", "old", "--prefix", "cut"]).await, Exit::Unavailable);
        fs::write(&path, "key\na\n\"b\n").unwrap();
        server.script.lock().unwrap().imports.clear();
        assert_eq!(strongroom(&server, &["import", "old", "--manifest", manifest]).await, Exit::Usage);
        assert!(server.script.lock().unwrap().imports.is_empty(), "nothing is done with half a manifest");
        assert!(Strongroom::try_parse_from(["strongroom", "import", "old"]).is_err());
    }

    #[tokio::test]
    async fn the_exit_code_says_what_kind_of_failure_it_was() {
        let server = FakeServer::start().await;
        for (code, exit) in [
            (Code::NotFound, Exit::NotFound),
            (Code::Unauthenticated, Exit::NotAllowed),
            (Code::PermissionDenied, Exit::NotAllowed),
            (Code::ResourceExhausted, Exit::NoRoom),
            (Code::InvalidArgument, Exit::Refused),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::DeadlineExceeded, Exit::Unavailable),
            (Code::DataLoss, Exit::Corrupted),
            (Code::Internal, Exit::Other),
        ] {
            server.refuse_with(code);
            assert_eq!(strongroom(&server, &["rm", "0198", "--json"]).await, exit);
        }
        assert_eq!(strongroom(&server, &["rm", "0198", "0199"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["undelete", "0198"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["quota", "--set-limit", "10GiB", "--json"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["versions", "ls", "0198"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["versions", "restore", "0198", "1", "--json"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["versions", "rm", "0198", "1"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["quota", "--usage"]).await, Exit::Ok);
        let transfer = ["transfer-ownership", "--from", "alice", "--to", "bob"];
        assert_eq!(strongroom(&server, &transfer).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["ls", "--all", "--json"]).await, Exit::Ok);
    }

    #[tokio::test]
    async fn an_interrupted_download_takes_its_hidden_file_along() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        let (partial, file) = super::partial_file::PartialFile::create(path, false).await.unwrap();
        assert_eq!(names_in(directory.path()).len(), 1);
        drop((partial, file));
        assert!(names_in(directory.path()).is_empty());
    }
}
