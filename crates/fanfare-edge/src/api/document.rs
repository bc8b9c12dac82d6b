//! The OpenAPI 3.1 document of the API, made of the same table as its routes and of the types of bodies and answers.

use std::sync::OnceLock;

use bytes::Bytes;
use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::TABLES;
use super::route::{Form, Parameter, Route};
use crate::problem::Document;

/// What is said of a route besides its path and its query.
pub(crate) struct Operation<'g> {
    read: &'g mut SchemaGenerator,
    written: &'g mut SchemaGenerator,
    content: Map<String, Value>,
    is_body_required: bool,
    responses: Map<String, Value>,
}

impl Operation<'_> {
    /// Its body is JSON of this type.
    pub(crate) fn body<T: JsonSchema>(&mut self) -> &mut Self {
        let schema = self.read.subschema_for::<T>();
        self.content.insert("application/json".to_owned(), json!({ "schema": schema }));
        self.is_body_required = true;
        self
    }

    /// Its body may be left out.
    pub(crate) fn optional(&mut self) -> &mut Self {
        self.is_body_required = false;
        self
    }

    /// Its body may be plain text.
    pub(crate) fn text(&mut self) -> &mut Self {
        self.content.insert("text/plain".to_owned(), json!({ "schema": { "type": "string" } }));
        self
    }

    /// It may answer with JSON of this type.
    pub(crate) fn answer<T: JsonSchema>(&mut self, status: u16, about: &str) -> &mut Self {
        let schema = self.written.subschema_for::<T>();
        self.answer_with(status, about, &json!(schema))
    }

    /// It may answer with JSON of a schema that is written out.
    pub(crate) fn answer_with(&mut self, status: u16, about: &str, schema: &Value) -> &mut Self {
        let content = json!({ "application/json": { "schema": schema } });
        self.responses.insert(status.to_string(), json!({ "description": about, "content": content }));
        self
    }
}

/// The document, as `GET /openapi.json` answers it.
pub(crate) fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT.get_or_init(|| Bytes::from(serde_json::to_vec(&made()).expect("names are text"))).clone()
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.contract = contract;
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn made() -> Value {
    let (mut read, mut written) = (generator(Contract::Deserialize), generator(Contract::Serialize));
    let problem = json!(written.subschema_for::<Document<'static>>());
    let mut paths = health();
    for route in TABLES.iter().copied().flatten() {
        let operation = operation(route, &mut read, &mut written, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas = read.take_definitions(true);
    schemas.extend(written.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fanfare",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of backends and operators of a Fanfare node. A parameter or field that is not named here is refused.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "one of `api.keys`" } },
        },
        "security": [{ "key": [] }],
    })
}

fn operation(route: &Route, read: &mut SchemaGenerator, written: &mut SchemaGenerator, problem: &Value) -> Value {
    let content = json!({ "application/problem+json": { "schema": problem } });
    let mut operation =
        Operation { read, written, content: Map::new(), is_body_required: false, responses: Map::new() };
    let (summary, describe) = route.about;
    describe(&mut operation);
    let Operation { content: body, is_body_required, mut responses, .. } = operation;
    responses.insert("default".to_owned(), json!({ "description": "why not: `code` is stable", "content": content }));
    let places = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let places = places.map(
        |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }),
    );
    let parameters: Vec<_> = places.chain(route.query.iter().map(parameter)).collect();
    let mut described = json!({
        "operationId": operation_id(route),
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
    });
    if !body.is_empty() {
        described["requestBody"] = json!({ "required": is_body_required, "content": body });
    }
    described
}

/// `getRoomsRoomHistory` of `GET /api/rooms/{room}/history`.
fn operation_id(route: &Route) -> String {
    let words = route.path.trim_start_matches("/api/").split(['/', '{', '}', '_']).filter(|word| !word.is_empty());
    words.fold(route.verb.as_str().to_ascii_lowercase(), |id, word| {
        let (first, rest) = word.split_at(1);
        id + &first.to_ascii_uppercase() + rest
    })
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.form {
        Form::Text => json!({ "type": "string" }),
        Form::Flag => json!({ "type": "string", "enum": ["1", "0", "true", "false"] }),
        Form::Limit(default, max) => json!({ "type": "integer", "minimum": 1, "maximum": max, "default": default }),
        Form::Position => json!({ "type": "string", "pattern": "^[0-9a-f]{16}:[0-9]{1,19}$" }),
        Form::Number => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
    };
    json!({ "name": parameter.name, "in": "query", "description": parameter.about, "schema": schema })
}

/// What the admin listener answers without a key.
fn health() -> Map<String, Value> {
    let text =
        |about: &str| json!({ "description": about, "content": { "text/plain": { "schema": { "type": "string" } } } });
    let not_ready = json!({ "description": "leaving service, or late", "content": { "application/problem+json": {} } });
    let page = |id: &str, summary: &str, responses: Value| json!({ "get": { "operationId": id, "summary": summary, "security": [], "responses": responses } });
    let document =
        json!({ "description": "OpenAPI 3.1", "content": { "application/json": { "schema": { "type": "object" } } } });
    let pages = [
        ("/livez", page("livez", "Whether the process runs", json!({ "200": text("it does") }))),
        ("/readyz", page("readyz", "Whether clients may come", json!({ "200": text("they may"), "503": not_ready }))),
        ("/metrics", page("metrics", "Metrics for Prometheus", json!({ "200": text("a page") }))),
        ("/openapi.json", page("openapi", "This document", json!({ "200": document }))),
    ];
    pages.into_iter().map(|(path, page)| (path.to_owned(), page)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::route::Verb;
    use super::*;

    #[test]
    fn every_route_is_documented() {
        let document: Value = serde_json::from_slice(&document()).expect("JSON");
        for route in TABLES.iter().copied().flatten() {
            let operation = &document["paths"][route.path][route.verb.as_str().to_ascii_lowercase()];
            let name = format!("{} {}", route.verb.as_str(), route.path);
            assert!(operation["summary"].as_str().is_some_and(|summary| summary.len() > 8), "{name}: no summary");
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.keys().any(|status| status.starts_with('2')), "{name}: no answer");
            let has_body = operation.get("requestBody").is_some();
            assert!(route.verb == Verb::Post || !has_body, "{name}: a body");
        }
    }

    /// No reference without its schema, and no two operations of one name.
    #[test]
    fn the_document_is_whole() {
        let text = String::from_utf8(document().to_vec()).expect("UTF-8");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().expect("a pointer");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let ids: Vec<_> = text.split("\"operationId\":\"").skip(1).filter_map(|part| part.split('"').next()).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "{ids:?}");
        assert!(ids.contains(&"getRoomsRoomHistory"), "{ids:?}");
    }
}
