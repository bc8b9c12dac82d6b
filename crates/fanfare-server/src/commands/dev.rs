//! `fanfare dev`: one command to a running gateway.

use std::time::Duration;

use fanfare_edge::Address;
use fanfare_guard::{Claims, NumericDate, RoomRight, TokenKeys};

use crate::cli;
use crate::config::Config;
use crate::inherited::Inherited;
use crate::reload::ConfigSource;

use super::serve::until_signalled;
use super::token::now;

/// Runs a gateway for trying things out and says what to try.
///
/// # Errors
/// When it cannot start, or a shard failed.
pub fn run(config: &Config, source: ConfigSource) -> anyhow::Result<()> {
    let mut config = config.clone();
    if config.tokens.is_empty() {
        // A key of this run: its tokens end with it.
        let key = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let keys = TokenKeys::parse([key.as_str()]).map_err(|(_, error)| error)?;
        config.tokens = keys.with_rules(config.tokens.rules().clone());
    }
    // Public keys alone check tokens but mint none.
    let token = config.tokens.mint(&claims(now())).ok();
    until_signalled(&config, Inherited::default(), source, |node| {
        Ok(cli::print(&greeting(node.clients(), node.admin(), token.as_deref()))?)
    })
}

/// What the printed token says: the user `dev`, everything in every room, for a day.
fn claims(now: Duration) -> Claims {
    use RoomRight::{Moderate, Presence, Publish, Subscribe};
    let rooms = [("*".to_owned(), vec![Subscribe, Publish, Presence, Moderate])].into();
    let (exp, iat) = (Some(now.as_secs() + 86_400), Some(NumericDate(now)));
    Claims { sub: Some("dev".to_owned()), exp, iat, rooms, ..Claims::default() }
}

const DEFAULT_CLIENTS: &str = "127.0.0.1:8080";
const DEFAULT_ADMIN: &str = "127.0.0.1:8081";

fn greeting(clients: &Address, admin: &Address, token: Option<&str>) -> String {
    let token = token.map_or_else(String::new, |token| {
        format!("  token   {token}\n          (user `dev`, everything in every room, one day)\n")
    });
    let (Address::Tcp(clients), Address::Tcp(admin)) = (clients, admin) else {
        return format!(
            "\n  fanfare dev: clients on {clients}, API on {admin}\n{token}  (the page and curl lines need TCP: leave out unix:)\n\n"
        );
    };
    let (clients, admin) = (clients.to_string(), admin.to_string());
    let sub_url = if clients == DEFAULT_CLIENTS { String::new() } else { format!(" --url ws://{clients}") };
    let pub_url = if admin == DEFAULT_ADMIN { String::new() } else { format!(" --url http://{admin}") };
    format!(
        "\n  fanfare dev, open to this machine only\n\n\
         \x20 page    http://{clients}/\n\
         \x20 api     http://{admin}\n\
         {token}\n\
         \x20 Try it in two other terminals:\n\n\
         \x20   fanfare sub lobby{sub_url}\n\
         \x20   fanfare pub lobby hello{pub_url}\n\n\
         \x20 or with curl:\n\n\
         \x20   curl -H 'content-type: text/plain' -d 'hello' 'http://{admin}/api/publish?room=lobby'\n\
         \x20   curl -d '{{\"room\":\"lobby\",\"message\":{{\"text\":\"hello\"}}}}' http://{admin}/api/publish\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_other_addresses_where_they_are_needed() {
        let plain = greeting(
            &DEFAULT_CLIENTS.parse().expect("an address"),
            &DEFAULT_ADMIN.parse().expect("an address"),
            Some("x.y.z"),
        );
        assert!(
            plain.contains("  token   x.y.z\n")
                && plain.contains("fanfare sub lobby\n")
                && plain.contains("page    http://127.0.0.1:8080/\n"),
            "{plain}"
        );
        let other =
            greeting(&"127.0.0.1:9".parse().expect("an address"), &"127.0.0.1:10".parse().expect("an address"), None);
        assert!(other.contains("fanfare sub lobby --url ws://127.0.0.1:9\n"), "{other}");
        assert!(other.contains("fanfare pub lobby hello --url http://127.0.0.1:10\n"), "{other}");
    }
}
