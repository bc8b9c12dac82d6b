//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, FromArgMatches as _, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::config::{Address, Config, ConfigError, ConfigFile, Environment, Flags, LogFormat};

mod examples;
mod gateway;
mod program;

pub(crate) use examples::{EXAMPLES, command};
pub use gateway::{ApiArgs, TrustArgs};
pub use program::{block_on, exit, start};
pub(crate) use program::{block_on_value, colour, print};

/// A WebSocket publish/subscribe gateway: connections in front, your backends behind, one HTTP call to publish.
///
/// Browsers and apps hold their connections to it; backends publish with one HTTP call; everyone in a room receives it. A message is
/// delivered, or whoever it concerns is told that it was not, with numbers. `fanfare COMMAND --help` says more about each command.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a gateway for trying things out, open to this machine only.
    Dev(DevArgs),
    /// Run the gateway.
    Serve(ServeArgs),
    /// Print each message of a room on a line; reconnects.
    Sub(SubArgs),
    /// Publish a message, or one for each line of the standard input, and print the receipt.
    Pub(PubArgs),
    /// Tell why connections were closed, and what to do about it.
    Why(WhyArgs),
    /// Show what a gateway does, live: rates, closes, the slowest consumers and the largest rooms.
    Top(TopArgs),
    /// Take a gateway out of service: close its connections at an even pace, and show how far that has got.
    Drain(DrainArgs),
    /// Validate a configuration and print the memory its limits add up to.
    Check(CheckArgs),
    /// Print the default configuration, the environment names or the reference page.
    #[command(subcommand)]
    Config(Print),
    /// Mint a token from the configured key, or explain one.
    Token(TokenArgs),
    /// Train the model of moderation from messages that people have judged.
    Train(TrainArgs),
    /// Print the script that makes a shell complete this command line.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands.
    Man(ManArgs),
    /// Print version, commit and how this program was built.
    Version,
}

/// Flags of the programs that listen.
#[derive(Debug, Clone, Default, Args)]
pub struct ListenArgs {
    /// Where clients connect: host:port or unix:/path. Without it: 0.0.0.0:8080, with dev 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,
    /// Where health, metrics and the HTTP API are served. Without it: 127.0.0.1:8081.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<Address>,
    /// How log lines are written.
    #[arg(long, value_name = "FORMAT", value_parser = log_format())]
    pub log: Option<LogFormat>,
    /// Threads that carry connections; 0: one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub shards: Option<u32>,
}

fn log_format() -> impl clap::builder::TypedValueParser<Value = LogFormat> {
    // The words are told apart before: shells complete them.
    PossibleValuesParser::new(["text", "json"]).try_map(|word| word.parse::<LogFormat>())
}

impl ListenArgs {
    fn flags(&self) -> Flags {
        Flags { listen: self.listen.clone(), admin: self.admin.clone(), log: self.log, shards: self.shards }
    }
}

/// Arguments of `fanfare dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Configuration file over the presets of dev; none unless it is named here.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Listeners, log and shards.
    #[command(flatten)]
    pub listen: ListenArgs,
}

/// Arguments of `fanfare serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file. Without it: fanfare.toml of the working directory, where there is one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Listeners, log and shards.
    #[command(flatten)]
    pub listen: ListenArgs,
}

/// Arguments of `fanfare sub`.
#[derive(Debug, Args)]
pub struct SubArgs {
    /// Room to listen to.
    pub room: String,
    /// Address of the client listener.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    pub url: String,
    /// Position to continue from.
    #[arg(long, value_name = "EPOCH:OFFSET")]
    pub since: Option<String>,
    /// Token to sign in with.
    #[arg(long)]
    pub token: Option<String>,
    /// Whose certificate counts.
    #[command(flatten)]
    pub trust: TrustArgs,
}

/// Arguments of `fanfare pub`.
#[derive(Debug, Args)]
pub struct PubArgs {
    /// Room to publish into.
    pub room: String,
    /// The message; `-` or nothing: each line of the standard input is one.
    pub message: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Arguments of `fanfare drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Time to close all connections in, such as 60s or 5m. Without it: the gateway's `drain.window_ms`, or half of what is left of a
    /// drain that is under way.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub window: Option<Duration>,
    /// Which gateway.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Arguments of `fanfare why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Only connections of this user.
    #[arg(long)]
    pub user: Option<String>,
    /// Only this connection, by the id that `welcome` told.
    #[arg(long, value_name = "ID")]
    pub connection: Option<String>,
    /// Only closes for this reason, such as slow_consumer.
    #[arg(long)]
    pub reason: Option<String>,
    /// How many are told, the latest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Print the API's answer instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Which gateway.
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Arguments of `fanfare top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Time between two looks, from 100ms to 1h.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one frame as text and end; so does an output that is no terminal.
    #[arg(long)]
    pub once: bool,
    /// No colour; so does NO_COLOR in the environment.
    #[arg(long)]
    pub no_color: bool,
    /// Which gateway.
    #[command(flatten)]
    pub api: ApiArgs,
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&time) => Ok(time),
        _ => Err("a time from 100ms to 1h is wanted, such as 1s".to_owned()),
    }
}

/// Arguments of `fanfare check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file. Without it: fanfare.toml of the working directory, where there is one.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Arguments of `fanfare man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for the program and each of its commands into this folder, instead.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// Arguments of `fanfare token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// User the token speaks for.
    #[arg(long, required_unless_present = "check")]
    pub user: Option<String>,
    /// Explain this token (`-`: the standard input) instead: what it says, who signed it, and whether a gateway with this
    /// configuration would take it now; if not, the exit code is 1.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["user", "room", "publish", "moderate"], allow_hyphen_values = true)]
    pub check: Option<String>,
    /// The explanation as JSON.
    #[arg(long, requires = "check")]
    pub json: bool,
    /// Room it grants rights in, or the beginning of rooms' names and `*`; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub room: Vec<String>,
    /// How long it holds, such as 15m, 1h or 7days.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// It may publish too, not only subscribe and ask for presence.
    #[arg(long)]
    pub publish: bool,
    /// It may close rooms.
    #[arg(long)]
    pub moderate: bool,
    /// Configuration file with `auth.keys`. Without it: fanfare.toml of the working directory, where there is one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl TokenArgs {
    /// The configuration whose key signs, with this process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn configuration(&self) -> Result<Config, ConfigError> {
        let file = ConfigFile::find(self.config.as_deref())?;
        Config::serve(&Flags::default(), file.as_ref(), &Environment::of_process()?)
    }
}

/// Arguments of `fanfare train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Files with a message a line, each behind its label, `spam` or `ham`, and a tab.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub labelled: Vec<PathBuf>,
    /// File with a message of spam a line; may be given several times.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub spam: Vec<PathBuf>,
    /// File with a wanted message a line; may be given several times.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ham: Vec<PathBuf>,
    /// Where the model goes.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// How sure the model must be to take a message for spam: a probability between 0 and 1.
    #[arg(long, default_value_t = 0.9, value_parser = probability)]
    pub threshold: f32,
    /// Share of the messages that is kept out of training to measure the model with.
    #[arg(long, default_value_t = 0.2, value_parser = share)]
    pub held_out: f64,
    /// Changes which messages those are.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(number) if 0.0 < number && number < 1.0 => Ok(number),
        _ => Err("a number between 0 and 1 is wanted, such as 0.9".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..1.0).contains(&number) => Ok(number),
        _ => Err("a number from 0 to below 1 is wanted, such as 0.2".to_owned()),
    }
}

/// What `fanfare config` prints.
#[derive(Debug, Subcommand)]
pub enum Print {
    /// A configuration file with every key at its default.
    Default,
    /// Every environment variable with type and default.
    Env,
    /// The reference page, Markdown.
    Docs,
}

impl DevArgs {
    /// The configuration of `fanfare dev` with this process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn configuration(&self) -> Result<(Config, Option<ConfigFile>), ConfigError> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?;
        let config = Config::dev(&self.listen.flags(), file.as_ref(), &Environment::of_process()?)?;
        Ok((config, file))
    }
}

impl ServeArgs {
    /// The configuration of `fanfare serve` with this process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn configuration(&self) -> Result<(Config, Option<ConfigFile>), ConfigError> {
        let file = ConfigFile::find(self.config.as_deref())?;
        let config = Config::serve(&self.listen.flags(), file.as_ref(), &Environment::of_process()?)?;
        Ok((config, file))
    }
}

/// Reads this process's command line. Ends the process when it is wrong, or asks for help.
#[must_use]
pub fn parse() -> Cli {
    let parsed = Cli::from_arg_matches(&command().get_matches());
    parsed.unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_are_parsed_at_the_door() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let Command::Serve(serve) =
            parse("fanfare serve --listen :1 --admin unix:/a --log json --shards 2").unwrap().command
        else {
            panic!("not serve");
        };
        let flags = serve.listen.flags();
        assert_eq!(flags.listen, Some(":1".parse().unwrap()));
        assert_eq!(flags.admin, Some("unix:/a".parse().unwrap()));
        assert_eq!((flags.log, flags.shards), (Some(LogFormat::Json), Some(2)));
        for line in [
            "fanfare",
            "fanfare serve --listen 8080",
            "fanfare dev --log xml",
            "fanfare dev --shards 2000",
            "fanfare top --interval 1ms",
            "fanfare top --interval 2h",
            "fanfare tap",
            "fanfare config",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
