//! Which tools a chat may call, and whether it has to: `tools`, `tool_choice` and `parallel_tool_calls`.

use super::fields::Fields;
use super::refusal::Refusal;
use serde_json::{Value as Json, json};

/// What `tool_choice` may be.
const CHOICES: &str = "expected `auto`, `none`, `required`, or {\"type\": \"function\", \"function\": {\"name\": …}}";

/// What a chat says of calls.
pub struct Calling {
    choice: Choice,
    /// Whether a reply may have more calls than one.
    several: bool,
    tools: Vec<Tool>,
    /// The tools as the request has them.
    json: Option<Json>,
}

/// A tool that may be called.
pub struct Tool {
    /// Where it stands in the request.
    pub at: usize,
    /// Its name.
    pub name: String,
    /// The schema of the object that it is given.
    pub parameters: Json,
}

/// Which tools are called.
#[derive(Debug, PartialEq)]
enum Choice {
    /// Any or none, as the model likes.
    Auto,
    /// None: it is not told of any.
    None,
    /// One or more.
    Required,
    /// This one.
    Named(String),
}

impl Calling {
    /// Takes its fields.
    ///
    /// # Errors
    /// When one makes no sense, or a tool has to be called that there is not.
    pub fn take(fields: &mut Fields) -> Result<Calling, Refusal> {
        let choice = Choice::take(fields)?;
        let several = fields.flag("parallel_tool_calls")?.unwrap_or(true);
        let json = fields.take("tools");
        let tools = json.as_ref().map_or_else(|| Ok(vec![]), tools)?;
        let known = match &choice {
            Choice::Required => !tools.is_empty(),
            Choice::Named(name) => tools.iter().any(|t| t.name == *name),
            Choice::Auto | Choice::None => true,
        };
        if !known {
            return Err(Refusal::field("tool_choice", "there is no such tool in `tools`"));
        }
        let told = json.filter(|_| !tools.is_empty() && choice != Choice::None);
        Ok(Calling {
            tools: if told.is_some() { tools } else { vec![] },
            json: told,
            choice,
            several,
        })
    }

    /// The tools that the model is told of, as the request has them.
    pub fn json(&self) -> Option<&Json> {
        self.json.as_ref()
    }

    /// Their names.
    pub fn names(&self) -> Option<Vec<String>> {
        let names = || self.tools.iter().map(|t| t.name.clone()).collect();
        self.json.as_ref().map(|_| names())
    }

    /// True where a reply has to be a call.
    pub fn is_must(&self) -> bool {
        matches!(self.choice, Choice::Required | Choice::Named(_))
    }

    /// Whether a reply may have more calls than one.
    pub fn several(&self) -> bool {
        self.several && !matches!(self.choice, Choice::Named(_))
    }

    /// The tools that may be called.
    pub fn callable(&self) -> Vec<&Tool> {
        let named = |t: &&Tool| match &self.choice {
            Choice::Named(name) => t.name == *name,
            _ => true,
        };
        self.tools.iter().filter(named).collect()
    }

    /// Where a reply is held to nothing, as many calls are read as it has.
    ///
    /// # Errors
    /// When there may be one only.
    pub fn free(&self) -> Result<(), Refusal> {
        match self.several {
            true => Ok(()),
            false => {
                let message = "false is not supported but where replies are held to calls: with a `tool_choice` that makes one a must, or \
                               tools beside a `response_format`";
                Err(Refusal::field("parallel_tool_calls", message))
            }
        }
    }
}

impl Choice {
    fn take(fields: &mut Fields) -> Result<Choice, Refusal> {
        match fields.take("tool_choice") {
            None => Ok(Choice::Auto),
            Some(Json::String(choice)) => match choice.as_str() {
                "auto" => Ok(Choice::Auto),
                "none" => Ok(Choice::None),
                "required" => Ok(Choice::Required),
                _ => Err(fields.wrong("tool_choice", CHOICES)),
            },
            Some(choice) => match (choice["type"].as_str(), choice["function"]["name"].as_str()) {
                (Some("function"), Some(name)) => Ok(Choice::Named(name.to_owned())),
                _ => Err(fields.wrong("tool_choice", CHOICES)),
            },
        }
    }
}

impl Tool {
    /// The schema of its arguments, which are an object whatever it says.
    pub fn schema(&self) -> Json {
        let mut schema = self.parameters.clone();
        if let Some(fields) = schema.as_object_mut() {
            fields.entry("type").or_insert_with(|| json!("object"));
        }
        schema
    }
}

fn tools(json: &Json) -> Result<Vec<Tool>, Refusal> {
    let wrong = || Refusal::field("tools", "expected a list of functions with names");
    let tool = |(at, tool): (usize, &Json)| {
        let function = &tool["function"];
        let name = function["name"].as_str().ok_or_else(wrong)?.to_owned();
        let parameters = match &function["parameters"] {
            Json::Null => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
            all @ Json::Object(_) => all.clone(),
            _ => {
                let field = format!("tools[{at}].function.parameters");
                return Err(Refusal::field(&field, "expected the schema of an object"));
            }
        };
        Ok(Tool { at, name, parameters })
    };
    let all = json.as_array().ok_or_else(wrong)?;
    all.iter().enumerate().map(tool).collect()
}
