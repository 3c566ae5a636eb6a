//! The form that a request wants its texts to have: `response_format` and `structured_outputs`.

use super::fields::Fields;
use super::refusal::Refusal;
use crate::generate::grammar::Grammar;
use serde_json::json;

/// The kinds of form that `structured_outputs` takes, of which there is one.
const KINDS: &str = "expected one of `json`, `regex` and `grammar`";

/// A form, and the field that it is of.
pub struct Form {
    /// The field.
    pub field: String,
    /// The form.
    pub grammar: Grammar,
}

/// Takes the form that texts are to have, where there is one.
///
/// # Errors
/// When a field makes no sense, or both ask for a form.
pub fn form(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    let asked = [response_format(fields)?, structured_outputs(fields)?];
    let mut asked = asked.into_iter().flatten();
    match (asked.next(), asked.next()) {
        (Some(_), Some(second)) => Err(Refusal::field(
            &second.field,
            "`response_format` asks for a form as well",
        )),
        (first, _) => Ok(first),
    }
}

/// OpenAI's field.
fn response_format(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    let Some(mut format) = fields.given("response_format")? else {
        return Ok(None);
    };
    let kind = format.text("type")?;
    let kind = kind.ok_or_else(|| format.wrong("type", "it is missing"))?;
    let form = match kind.as_str() {
        "text" => None,
        "json_object" => Some(Form {
            field: "response_format".into(),
            grammar: Grammar::Schema(json!({ "type": "object" })),
        }),
        "json_schema" => {
            let inner = format.given("json_schema")?;
            let mut inner = inner.ok_or_else(|| format.wrong("json_schema", "it is missing"))?;
            // All schemas are held to, strict or not; names and descriptions are for who reads.
            inner.text("name")?;
            inner.text("description")?;
            inner.flag("strict")?;
            let schema = inner.needed("schema")?;
            inner.finish()?;
            Some(Form {
                field: "response_format.json_schema.schema".into(),
                grammar: Grammar::Schema(schema),
            })
        }
        other => {
            let message = format!("{other}, expected text, json_object or json_schema");
            return Err(format.wrong("type", message));
        }
    };
    format.finish()?;
    Ok(form)
}

/// The field that other servers have for forms that OpenAI has none for.
fn structured_outputs(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    let Some(mut outputs) = fields.given("structured_outputs")? else {
        return Ok(None);
    };
    let json = outputs.take("json").map(Grammar::Schema);
    let regex = outputs.text("regex")?.map(Grammar::Regex);
    let lark = outputs.text("grammar")?.map(Grammar::Lark);
    outputs.finish()?;
    let all = [("json", json), ("regex", regex), ("grammar", lark)];
    let mut all = all.into_iter().filter_map(|(name, grammar)| Some((name, grammar?)));
    match (all.next(), all.next()) {
        (Some((name, grammar)), None) => Ok(Some(Form {
            field: format!("structured_outputs.{name}"),
            grammar,
        })),
        _ => Err(Refusal::field("structured_outputs", KINDS)),
    }
}
