//! Compiles `proto/` without protoc: protox parses the files, and prost and tonic generate the code. Also
//! writes the descriptor set, which gRPC reflection and the contract tests use, and embeds the files of
//! `migrations/`.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

const ROOT: &str = "proto";
const FILES: [&str; 11] = [
    "strongroom/admin/v1/tenant_service.proto",
    "strongroom/v1/error_reason.proto",
    "strongroom/v1/event_service.proto",
    "strongroom/v1/file_service.proto",
    "strongroom/v1/import_service.proto",
    "strongroom/v1/policy_service.proto",
    "strongroom/v1/quota_service.proto",
    "strongroom/v1/service_info_service.proto",
    "strongroom/v1/share_service.proto",
    "strongroom/v1/upload_service.proto",
    "strongroom/v1/webhook_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    println!("cargo:rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.binpb"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("migrations.rs"), embed_migrations()?)?;

    // The leading dot is required. Without it, the path matches nothing, and every chunk is copied an
    // additional time.
    let mut config = tonic_prost_build::Config::new();
    // The codec finds the descriptor of a message by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".strongroom")
        .codec_path("crate::proto::codec::GuardedCodec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// Returns the lists that `src/db/migrate/embedded.rs` includes: all migrations and all functions.
fn embed_migrations() -> Result<String, Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("migrations");
    let include = |path: &Path| format!("include_str!({:?})", path.display().to_string());
    let mut code = String::from("pub(super) const MIGRATIONS: &[EmbeddedMigration] = &[\n");
    for directory in list_sorted(&root)?.iter().filter(|path| path.is_dir() && !path.ends_with("functions")) {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let (up, down) = (include(&directory.join("up.sql")), include(&directory.join("down.sql")));
        writeln!(code, "EmbeddedMigration {{ name: {name:?}, up: {up}, down: {down} }},")?;
    }
    code.push_str("];\npub(super) const FUNCTIONS: &[EmbeddedFunction] = &[\n");
    let is_sql = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "sql");
    for file in list_sorted(&root.join("functions"))?.iter().filter(is_sql) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        writeln!(code, "EmbeddedFunction {{ name: {name:?}, text: {} }},", include(file))?;
    }
    code.push_str("];\n");
    Ok(code)
}

fn list_sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}
