//! A route of the API, and a call of it.

use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request};

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

/// One entry of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// Segments in braces are places: they stand for any text.
    pub(crate) path: &'static str,
    pub(crate) call: fn(Call) -> Answering,
}

impl Route {
    pub(crate) const fn get(path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self { verb: Verb::Get, path, call }
    }

    pub(crate) const fn post(path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self { verb: Verb::Post, path, call }
    }

    pub(crate) const fn delete(path: &'static str, call: fn(Call) -> Answering) -> Self {
        Self { verb: Verb::Delete, path, call }
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
        method.as_str() == self.verb.as_str()
    }
}

/// A call of the API: what is asked, and of which node.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) hub: Arc<Hub>,
    pub(crate) request: Request<Incoming>,
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
