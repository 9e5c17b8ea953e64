//! The commands that call a server over gRPC.

mod access_log;
mod connection;
mod credits;
mod erasures;
pub(super) mod exit;
mod failure;
mod get;
mod grants;
mod human;
mod import;
mod info;
mod ls;
mod open;
mod output;
mod partial_file;
mod port;
mod put;
mod quota;
mod rate_limit;
mod records;
mod rm;
mod safe_name;
mod share;
mod standard_streams;
mod tenant_rate_limits;
mod tenant_records;
mod tenants;
mod transfer_ownership;
mod upload_state;
mod usage;
mod versions;
mod watch;

use clap::Subcommand;

use self::{connection::ConnectionArgs, exit::Exit, failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Upload files or standard input.
    ///
    /// A file is stored completely and verified, or not at all. Uploads of 16 MiB or more resume after an
    /// interruption: by themselves while the command runs, and after it was stopped if the same command is
    /// run again within 24 hours.
    Put(Box<put::PutArgs>),
    /// Download files or a byte range of each.
    ///
    /// The bytes are written to a hidden temporary file next to the destination, which is renamed after all
    /// checks have passed. An interrupted or corrupted download leaves no file. Without --output, each file
    /// is saved in the current directory under a safe form of its name: without directories, leading dots and
    /// control characters.
    Get(Box<get::GetArgs>),
    /// Download the file of a share as a visitor, without a token.
    ///
    /// The bytes are verified, and an interrupted download is resumed while the command runs. It counts as one download
    /// of the share.
    Open(Box<open::OpenArgs>),
    /// Show the attempts of visitors to read a file or to use a share.
    ///
    /// The log of a file is for its owner and the tenant's admins, that of a share also for its creator.
    AccessLog(Box<access_log::AccessLogArgs>),
    /// List the files that are visible with the token.
    Ls(Box<ls::LsArgs>),
    /// Move files to the trash, or purge them.
    Rm(rm::RmArgs),
    /// Restore files from the trash.
    Undelete(rm::UndeleteArgs),
    /// List the versions of a file, and restore or delete a version.
    #[command(subcommand)]
    Versions(versions::VersionsCommand),
    /// Share files: links for visitors, and permissions for users, groups and the organization.
    #[command(subcommand)]
    Share(share::ShareCommand),
    /// Give a user or a group a permission on a file.
    ///
    /// Replaces the permission and the expiry that the user or group has. The owner and tenant admins give any
    /// permission; others give at most their own, until its expiry.
    Grant(grants::GrantArgs),
    /// Revoke the permission of a user or a group on a file.
    ///
    /// Also revokes the permissions that the user or the group gave to others because of it. Shares stay.
    Ungrant(grants::UngrantArgs),
    /// List the permissions of users and groups on a file.
    Grants(grants::GrantsArgs),
    /// Print file changes as they happen.
    ///
    /// Runs until it is interrupted. A broken connection is re-established without missing changes.
    Watch(watch::WatchArgs),
    /// Import existing objects as files; for tenant admins.
    ///
    /// Imports from a source that the server's operator has configured: a directory, a bucket, or hosts whose
    /// URLs may be fetched. The command can be repeated after any failure: an object that was already
    /// imported is reported with its existing file. Exits with 1 if an item failed.
    ///
    /// Prints one line per object: the outcome (imported, already imported, would be imported or failed), the id
    /// of the file, and the object's key or URL.
    ///
    /// A manifest is a CSV file whose first line names the columns, or a file with one JSON object per line
    /// (.jsonl). The columns are: key or url (one of them is required), and optionally legacy_id, owner,
    /// category, create_time (a date or RFC 3339) and entity (TYPE:ID or TYPE:ID:FIELD).
    Import(Box<import::ImportArgs>),
    /// Show the version, the limits and the features of the server.
    Info(info::InfoArgs),
    /// Show a tenant's quota and usage, check whether uploads fit, or set its limits.
    Quota(quota::QuotaArgs),
    /// Show what a tenant stores, its largest owners, or its history.
    Usage(usage::UsageArgs),
    /// Show the credits of a user, add or deduct credits, or list their entries.
    Credits(Box<credits::CreditsArgs>),
    /// Check the events of users against limits that a backend service defines.
    #[command(subcommand)]
    RateLimit(rate_limit::RateLimitCommand),
    /// Transfer all files of a user to another user; for tenant admins.
    ///
    /// Includes files in the trash. Run the command again after an interruption to transfer the remaining
    /// files.
    TransferOwnership(transfer_ownership::TransferArgs),
    /// Create, suspend, export and delete tenants; for operators.
    Tenants(Box<tenants::TenantsArgs>),
}

impl ClientCommand {
    fn output(&self) -> Output {
        let json = match self {
            Self::Put(args) => args.json,
            Self::Get(args) => args.json,
            Self::Open(args) => args.json,
            Self::AccessLog(args) => args.json,
            Self::Ls(args) => args.json,
            Self::Rm(args) => args.json,
            Self::Undelete(args) => args.json,
            Self::Versions(command) => command.is_json(),
            Self::Share(command) => command.is_json(),
            Self::Grant(args) => args.json,
            Self::Ungrant(args) => args.json,
            Self::Grants(args) => args.json,
            Self::Watch(args) => args.json,
            Self::Import(args) => args.json,
            Self::Info(args) => args.json,
            Self::Quota(args) => args.json,
            Self::Usage(args) => args.json,
            Self::Credits(args) => args.common().json,
            Self::RateLimit(command) => command.is_json(),
            Self::TransferOwnership(args) => args.json,
            Self::Tenants(args) => args.common().json,
        };
        Output { json }
    }

    fn connection(&self) -> &ConnectionArgs {
        match self {
            Self::Put(args) => &args.connection,
            Self::Get(args) => &args.connection,
            Self::Open(args) => &args.connection,
            Self::AccessLog(args) => &args.connection,
            Self::Ls(args) => &args.connection,
            Self::Rm(args) => &args.connection,
            Self::Undelete(args) => &args.connection,
            Self::Versions(command) => command.connection(),
            Self::Share(command) => command.connection(),
            Self::Grant(args) => &args.connection,
            Self::Ungrant(args) => &args.connection,
            Self::Grants(args) => &args.connection,
            Self::Watch(args) => &args.connection,
            Self::Import(args) => &args.connection,
            Self::Info(args) => &args.connection,
            Self::Quota(args) => &args.connection,
            Self::Usage(args) => &args.connection,
            Self::Credits(args) => &args.common().connection,
            Self::RateLimit(command) => command.connection(),
            Self::TransferOwnership(args) => &args.connection,
            Self::Tenants(args) => &args.common().connection,
        }
    }

    async fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Self::Put(args) => put::run_put(*args, output).await,
            Self::Get(args) => get::run_get(*args, output).await,
            Self::Open(args) => open::run_open(*args, output).await,
            Self::AccessLog(args) => access_log::run_access_log(*args, output).await,
            Self::Ls(args) => ls::run_ls(*args, output).await,
            Self::Rm(args) => rm::run_rm(args, output).await,
            Self::Undelete(args) => rm::run_undelete(args, output).await,
            Self::Versions(command) => versions::run_versions(command, output).await,
            Self::Share(command) => share::run_share(command, output).await,
            Self::Grant(args) => grants::run_grant(args, output).await,
            Self::Ungrant(args) => grants::run_ungrant(args, output).await,
            Self::Grants(args) => grants::run_grants(args, output).await,
            Self::Watch(args) => watch::run_watch(args, output).await,
            Self::Import(args) => import::run_import(*args, output).await,
            Self::Info(args) => info::run_info(args, output).await,
            Self::Quota(args) => quota::run_quota(args, output).await,
            Self::Usage(args) => usage::run_usage(args, output).await,
            Self::Credits(args) => credits::run_credits(*args, output).await,
            Self::RateLimit(command) => rate_limit::run_rate_limit(command, output).await,
            Self::TransferOwnership(args) => transfer_ownership::run_transfer_ownership(args, output).await,
            Self::Tenants(args) => tenants::run_tenants(*args, output).await,
        }
    }
}

/// Runs a command and prints its error.
///
/// Ctrl-C drops the command's future, which also deletes the temporary file of an unfinished download. A
/// blocking read of standard input cannot be cancelled: shut the runtime down in the background, or the
/// process waits for that read.
pub(super) async fn run_client_command(command: ClientCommand) -> Exit {
    let output = command.output();
    let connection = command.connection().clone();
    let result = tokio::select! {
        result = command.run(output) => result,
        Ok(()) = tokio::signal::ctrl_c() => return Exit::Interrupted,
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(failure) if failure.is_broken_pipe() => Exit::Ok,
        Err(failure) => {
            output.report(&failure);
            if failure.may_be_of_another_server()
                && let Some(advice) = connection.find_port_advice().await
            {
                output.hint(&advice);
                return Exit::Unavailable;
            }
            failure.exit()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::{
        client::{
            Code,
            fake_service::{FakeServer, download_messages},
        },
        proto::v1::upload_file_request::Message,
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
        run_client_command(Strongroom::try_parse_from(arguments).unwrap().command).await
    }

    fn list_names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn argument_definitions_are_valid() {
        Strongroom::command().debug_assert();
    }

    #[tokio::test]
    async fn download_is_saved_under_safe_name() {
        let server = FakeServer::start().await;
        server.script_download(download_messages("../../.evil\n.txt", b"harmless", 3));
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().to_str().unwrap();
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Ok);
        assert_eq!(list_names(directory.path()), ["evil_.txt"]);
        assert_eq!(fs::read(directory.path().join("evil_.txt")).unwrap(), b"harmless");
    }

    #[tokio::test]
    async fn failed_download_leaves_no_file() {
        let server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().to_str().unwrap();

        let mut damaged = download_messages("a.txt", b"harmless", 3);
        damaged.pop();
        server.script_download(damaged.clone());
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Corrupted);

        server.script_download(damaged);
        server.script.lock().unwrap().fail_download_at_end(Code::DataLoss);
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Corrupted);
        assert!(list_names(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn existing_file_is_replaced_only_with_force() {
        let server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        let to = path.to_str().unwrap();
        fs::write(&path, "mine").unwrap();
        server.script_download(download_messages("b.txt", b"theirs", 3));

        assert_eq!(strongroom(&server, &["get", "0198", "-o", to]).await, Exit::Usage);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(strongroom(&server, &["get", "0198", "-o", to, "--force"]).await, Exit::Ok);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(strongroom(&server, &["get", "0198", "-o", "/dev/null", "--force"]).await, Exit::Usage);
        assert_eq!(list_names(directory.path()), ["a.txt"]);
    }

    #[tokio::test]
    async fn put_continues_after_failed_file() {
        let mut server = FakeServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good.txt");
        fs::write(&good, "good").unwrap();
        let missing = directory.path().join("missing.txt");
        let files = [missing.to_str().unwrap(), good.to_str().unwrap()];
        assert_eq!(strongroom(&server, &["put", files[0], files[1]]).await, Exit::Other);
        let uploaded = server.uploads.recv().await.expect("the readable file is uploaded");
        let Message::Spec(spec) = &uploaded[0] else { panic!("{uploaded:?}") };
        assert_eq!(spec.mime_type, "text/plain", "declared by its extension");

        let both = ["put", files[0], files[1], "--name", "one name"];
        assert_eq!(strongroom(&server, &both).await, Exit::Usage);
        assert_eq!(strongroom(&server, &["put", "-"]).await, Exit::Usage);
    }

    #[tokio::test]
    async fn import_sends_all_items_and_fails_if_one_fails() {
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
        let sent: Vec<_> = items
            .iter()
            .map(|item| (item.owner_id.as_str(), item.spec.as_ref().unwrap().category.as_str()))
            .collect();
        assert_eq!(sent, [("bob", "report"), ("bob", "report"), ("ann", "report"), ("bob", "avatar")]);

        assert_eq!(strongroom(&server, &["import", "old", "--key", "a", "--key", "bad"]).await, Exit::Other);
        assert_eq!(strongroom(&server, &["import", "old", "--prefix", "cut"]).await, Exit::Unavailable);
        fs::write(&path, "key\na\n\"b\n").unwrap();
        server.script.lock().unwrap().imports.clear();
        assert_eq!(strongroom(&server, &["import", "old", "--manifest", manifest]).await, Exit::Usage);
        assert!(
            server.script.lock().unwrap().imports.is_empty(),
            "nothing is imported from an invalid manifest"
        );
        assert!(Strongroom::try_parse_from(["strongroom", "import", "old"]).is_err());
    }

    #[tokio::test]
    async fn get_saves_several_files_in_a_directory() {
        let server = FakeServer::start().await;
        server.script_download(download_messages("a.txt", b"harmless", 3));
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().to_str().unwrap();
        // Both downloads have the same name, so the second one fails, and the first one is kept.
        assert_eq!(strongroom(&server, &["get", "0198", "0199", "-o", to]).await, Exit::Usage);
        assert_eq!(list_names(directory.path()), ["a.txt"]);
        assert_eq!(strongroom(&server, &["get", "0198", "0199", "-o", to, "--force"]).await, Exit::Ok);
        for to in ["-", "one-file"] {
            assert_eq!(strongroom(&server, &["get", "0198", "0199", "-o", to]).await, Exit::Usage);
        }
        assert_eq!(strongroom(&server, &["get", "0198", "0199", "--version", "2"]).await, Exit::Usage);
    }

    #[tokio::test]
    async fn missing_ids_and_directories_are_usage_errors() {
        let server = FakeServer::start().await;
        for command in ["get", "rm", "undelete"] {
            assert_eq!(strongroom(&server, &[command]).await, Exit::Usage, "{command}");
        }
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_str().unwrap(), ".", "/"] {
            assert_eq!(strongroom(&server, &["put", path]).await, Exit::Usage, "{path}");
        }
    }

    #[tokio::test]
    async fn exit_code_identifies_kind_of_error() {
        let server = FakeServer::start().await;
        for (code, exit) in [
            (Code::NotFound, Exit::NotFound),
            (Code::Unauthenticated, Exit::NotAllowed),
            (Code::PermissionDenied, Exit::NotAllowed),
            (Code::ResourceExhausted, Exit::LimitReached),
            (Code::InvalidArgument, Exit::Rejected),
            (Code::FailedPrecondition, Exit::Rejected),
            (Code::DeadlineExceeded, Exit::Unavailable),
            (Code::DataLoss, Exit::Corrupted),
            (Code::Internal, Exit::Other),
        ] {
            server.refuse_next_call_with(code);
            assert_eq!(strongroom(&server, &["rm", "0198", "--json"]).await, exit);
        }
        assert_eq!(strongroom(&server, &["rm", "0198", "0199"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["undelete", "0198"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["quota", "--set-limit", "10GiB", "--json"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["versions", "ls", "0198"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["versions", "restore", "0198", "1", "--json"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["versions", "rm", "0198", "1"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["quota", "--usage"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["quota", "--check", "1MiB", "2MB"]).await, Exit::Ok);
        for option in ["--alerts", "--recalculate", "--recalculation"] {
            assert_eq!(strongroom(&server, &["quota", option]).await, Exit::Ok, "{option}");
        }
        for (subject, exit) in [("alice", Exit::Ok), ("mallory", Exit::LimitReached)] {
            let check =
                ["rate-limit", "check", subject, "--action", "send_mail", "--limit", "5", "--window", "60s"];
            assert_eq!(strongroom(&server, &check).await, exit, "{subject}");
            assert_eq!(strongroom(&server, &[&check[..], &["--json"]].concat()).await, exit, "{subject}");
        }
        let conflict = ["strongroom", "quota", "--check", "1", "--usage", "--server", "x", "--token", "y"];
        assert!(Strongroom::try_parse_from(conflict).is_err());
        for shown in ["--owners", "--history", "--json"] {
            assert_eq!(strongroom(&server, &["usage", shown]).await, Exit::Ok, "{shown}");
        }
        assert_eq!(strongroom(&server, &["info"]).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["info", "--json"]).await, Exit::Ok);
        let transfer = ["transfer-ownership", "--from", "alice", "--to", "bob"];
        assert_eq!(strongroom(&server, &transfer).await, Exit::Ok);
        assert_eq!(strongroom(&server, &["ls", "--all", "--json"]).await, Exit::Ok);
    }

    #[tokio::test]
    async fn interrupted_download_deletes_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        let (partial, file) = super::partial_file::PartialFile::create(path, false).await.unwrap();
        assert_eq!(list_names(directory.path()).len(), 1);
        drop((partial, file));
        assert!(list_names(directory.path()).is_empty());
    }
}
