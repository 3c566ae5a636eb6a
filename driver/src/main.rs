//! The command line `brolga`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
