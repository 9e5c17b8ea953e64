//! The `strongroom` binary: parses its arguments and hands over to [`strongroom::cli`].

fn main() -> std::process::ExitCode {
    strongroom::cli::run()
}
