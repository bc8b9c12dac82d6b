//! A route of the API, and a call of it.

use std::pin::Pin;
use std::sync::Arc;

use fanfare_protocol::{NameError, UserName};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

use super::document::Operation;
use crate::hub::Hub;
use crate::problem::{Answer, Problem};
use crate::query;

/// What is asked of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// An answer that may take its time.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Answer, Problem>>>>;

/// An answer that is there at once.
pub(crate) fn now(answer: Result<Answer, Problem>) -> Answering {
    Box::pin(std::future::ready(answer))
}

/// What a parameter of a query may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Text,
    /// `1` or `true`, `0` or `false`.
    Flag,
    /// How much is answered: the default, and the most.
    Limit(usize, usize),
    Number,
    /// `epoch:offset`.
    Position,
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) form: Form,
}

/// One entry of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// Segments in braces are places: they stand for any text.
    pub(crate) path: &'static str,
    /// What its query may have. Anything else is refused: a filter that is misspelt must not pass for none.
    pub(crate) query: &'static [Parameter],
    /// What the API's document says of it: a summary, its body and its answers.
    pub(crate) about: (&'static str, fn(&mut Operation<'_>)),
    pub(crate) call: fn(Call) -> Answering,
}

impl Route {
    const fn new(verb: Verb, path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self { verb, path, query: &[], about: ("", |_| {}), call }
    }

    pub(crate) const fn get(path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self::new(Verb::Get, path, call)
    }

    pub(crate) const fn post(path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self::new(Verb::Post, path, call)
    }

    pub(crate) const fn delete(path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self::new(Verb::Delete, path, call)
    }

    /// The same with parameters in its query.
    pub(crate) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// The same with what the API's document says of it.
    pub(crate) const fn about(self, summary: &'static str, describe: fn(&mut Operation<'_>)) -> Self {
        Self { about: (summary, describe), ..self }
    }

    /// Checks that a query has each parameter of this route at most once, and no other.
    ///
    /// # Errors
    /// 422, with what was found.
    pub(crate) fn check_query(&self, query: Option<&str>) -> Result<(), Problem> {
        let mut seen = Vec::new();
        for (name, value) in query::pairs(query) {
            let known = self.query.iter().map(|parameter| parameter.name).find(|known| name.as_deref() == Some(*known));
            let Some(known) = known else {
                return Err(self.unknown_parameter(name.as_deref().unwrap_or_default()));
            };
            if seen.contains(&known) {
                return Err(bad_parameter("repeated_parameter", format!("{known} is given more than once")));
            }
            if value.is_none() {
                return Err(bad_parameter("bad_parameter", format!("{known} is not UTF-8")));
            }
            seen.push(known);
        }
        Ok(())
    }

    /// How much is answered: by default, and at most.
    fn limits(&self) -> (usize, usize) {
        let limits = self.query.iter().find_map(|parameter| match parameter.form {
            Form::Limit(default, max) => Some((default, max)),
            Form::Text | Form::Flag | Form::Number | Form::Position => None,
        });
        limits.unwrap_or((1, 1))
    }

    fn unknown_parameter(&self, name: &str) -> Problem {
        let known: Vec<_> = self.query.iter().map(|known| format!("{} ({})", known.name, known.about)).collect();
        let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let name: String = name.chars().take(40).collect();
        bad_parameter("unknown_parameter", format!("{name:?} is no parameter of this call, which takes {takes}"))
    }

    /// What stands in the places of `path`, decoded; `None` when it is another path. What is not UTF-8 is read as nothing,
    /// which is no name of anything.
    pub(crate) fn places(&self, path: &str) -> Option<Vec<String>> {
        let mut segments = path.split('/');
        let mut places = Vec::new();
        for expected in self.path.split('/') {
            let segment = segments.next()?;
            if !expected.starts_with('{') {
                if segment != expected {
                    return None;
                }
            } else if segment.is_empty() {
                return None;
            } else {
                places.push(query::segment(segment).unwrap_or_default());
            }
        }
        segments.next().is_none().then_some(places)
    }

    pub(crate) fn takes(&self, method: &Method) -> bool {
        // RFC 9110 section 9.3.2: HEAD is GET without the content, which hyper leaves out.
        method.as_str() == self.verb.as_str() || (self.verb == Verb::Get && method == Method::HEAD)
    }
}

/// A call of the API: what is asked, and of which node.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) hub: Arc<Hub>,
    pub(crate) request: Request<Incoming>,
    pub(crate) is_tls: bool,
    pub(crate) route: &'static Route,
    /// What stands in the places of the route, in their order.
    pub(crate) places: Vec<String>,
}

impl Call {
    /// What stands in a place of the route.
    pub(crate) fn place(&self, index: usize) -> &str {
        &self.places[index]
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.request.uri().query()
    }

    /// A parameter of the query; nothing when it is not there.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        query::parameter(self.query(), name)
    }

    /// Whether something is asked for.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(bad_parameter("bad_parameter", format!("{name} is 1 or 0"))),
        }
    }

    /// The number asked for in `limit`, from 1 to the most that its route answers with.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        let (default, max) = self.route.limits();
        match self.text("limit").map(|limit| limit.parse::<usize>()) {
            None => Ok(default),
            Some(Ok(limit)) if (1..=max).contains(&limit) => Ok(limit),
            Some(_) => Err(bad_parameter("bad_limit", format!("limit is a number from 1 to {max}"))),
        }
    }

    /// A number of the query.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let bad = |_| bad_parameter("bad_parameter", format!("{name} is a whole number"));
        self.text(name).map(|text| text.parse().map_err(bad)).transpose()
    }

    /// A user of the query.
    pub(crate) fn user(&self, name: &str) -> Result<Option<UserName>, Problem> {
        let bad = |error: NameError| bad_parameter("bad_user", error.to_string());
        self.text(name).map(|user| UserName::parse(&user).map_err(bad)).transpose()
    }
}

fn bad_parameter(code: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_by_its_whole_path() {
        let places = |route: &'static str, path: &str| {
            Route::get(route, |_| unreachable!("nothing is called here")).places(path)
        };
        let text = |places: &[&str]| Some(places.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (route, path, expected) in [
            ("/api/rooms", "/api/rooms", text(&[])),
            ("/api/rooms", "/api/rooms/", None),
            ("/api/rooms", "/api", None),
            ("/api/rooms/{room}", "/api/rooms/a", text(&["a"])),
            ("/api/rooms/{room}", "/api/rooms/%E6%88%BF%2F", text(&["房/"])),
            ("/api/rooms/{room}", "/api/rooms/%FF", text(&[""])),
            ("/api/rooms/{room}", "/api/rooms/", None),
            ("/api/rooms/{room}", "/api/rooms/a/b", None),
            ("/api/held/{held}/release", "/api/held/7/release", text(&["7"])),
            ("/api/held/{held}/release", "/api/held/7/discard", None),
            ("/api/held/{held}/release", "/api/held//release", None),
        ] {
            assert_eq!(places(route, path), expected, "{route} {path}");
        }
    }
}
