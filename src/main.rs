//! The `strongroom` binary: parses its arguments and hands over to [`strongroom::cli`].

/// Received chunks are large and short-lived; glibc gives each back to the kernel and asks for the next, page by page.
/// Measured on two cores beside it: a large upload is a fifth faster or more, a small file costs a tenth less. Its size
/// classes hold more for many small uploads, which `config::memory` counts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    strongroom::cli::run()
}
