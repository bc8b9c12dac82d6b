//! The `fanfare` binary: reads the command line and calls the library.

use std::process::ExitCode;

use fanfare_server::cli::{self, Command};
use fanfare_server::commands;
use fanfare_server::inherited::Inherited;

#[global_allocator]
static ALLOCATOR: fanfare_alloc::Allocator = fanfare_alloc::Allocator;

fn main() -> ExitCode {
    fanfare_alloc::use_small_pages();
    cli::exit(match cli::parse().command {
        Command::Sub(args) => cli::block_on(commands::sub::run(&args)),
        Command::Pub(args) => cli::block_on(commands::publish::run(&args)),
        Command::Why(args) => cli::block_on(commands::why::run(&args)),
        Command::Top(args) => cli::block_on(commands::top::run(&args)),
        Command::Drain(args) => cli::block_on(commands::drain::run(&args)),
        Command::Check(args) => commands::check::run(&args),
        Command::Config(print) => commands::config::run(&print),
        Command::Token(args) => args.configuration().map_err(Into::into).and_then(|config| match &args.check {
            Some(token) => commands::check_token::run(&config, token, args.json),
            None => commands::token::run(&config, &args),
        }),
        Command::Train(args) => commands::train::run(&args),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Man(args) => commands::man::run(&args),
        Command::Version => commands::version::run(),
        Command::Dev(args) => cli::start(move || args.configuration(), commands::dev::run),
        Command::Serve(args) => {
            // Before there are other threads: the variables that name them are taken away.
            let inherited = Inherited::from_environment();
            cli::start(move || args.configuration(), |config, source| commands::serve::run(config, source, inherited?))
        }
    })
}
