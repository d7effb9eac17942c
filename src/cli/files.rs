//! Shell completions and man pages, made from the command line's own definition.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use super::Failure;
use super::args::Cli;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "trueup", &mut script);
    print(&script)
}

pub(super) fn man(dir: Option<&Path>) -> Result<u8, Failure> {
    let command = Cli::command();
    match dir {
        Some(dir) => {
            let fail = |error| {
                Failure::new(
                    format!("cannot write man pages to {}: {error}", dir.display()),
                    "check the folder",
                )
            };
            std::fs::create_dir_all(dir).map_err(fail)?;
            clap_mangen::generate_to(command, dir).map_err(fail)?;
            Ok(0)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print(&page)
        }
    }
}

/// A reader that closes the pipe has seen enough.
fn print(bytes: &[u8]) -> Result<u8, Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}
