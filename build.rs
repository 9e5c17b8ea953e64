//! Compiles `proto/` without protoc: protox parses the files, and prost and tonic generate the code. Also
//! writes the descriptor set, which gRPC reflection and the contract tests use.

use std::{env, error::Error, fs, path::PathBuf};

const ROOT: &str = "proto";
const FILES: [&str; 10] = [
    "strongroom/admin/v1/tenant_service.proto",
    "strongroom/v1/error_reason.proto",
    "strongroom/v1/event_service.proto",
    "strongroom/v1/file_service.proto",
    "strongroom/v1/import_service.proto",
    "strongroom/v1/policy_service.proto",
    "strongroom/v1/quota_service.proto",
    "strongroom/v1/service_info_service.proto",
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

    // The leading dot is required. Without it, the path matches nothing, and every chunk is copied an
    // additional time.
    tonic_prost_build::configure().bytes(".strongroom").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
