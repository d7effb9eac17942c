//! The binary: hands the arguments to the library and returns its exit status.

fn main() -> std::process::ExitCode {
    trueup::cli::run(std::env::args_os())
}
