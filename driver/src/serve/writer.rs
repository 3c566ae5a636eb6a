//! A language model that is served: requests become texts for the engine.

use super::answer::{Answer, Form};
use super::call_grammar::Style;
use super::calling::Calling;
use super::fields::Fields;
use super::forms;
use super::logprobs::{self, Words};
use super::prompts;
use super::queue::Wanted;
use super::refusal::{Refusal, told};
use super::wishes::Wishes;
use crate::generate::grammar::{Constraint, Grammar, Grammars};
use crate::generate::text::{ChatTemplate, Ordered, Tokenizer};
use crate::generate::{Model, draft};
use crate::{Error, Result};
use serde_json::json;
use std::sync::{Arc, OnceLock};

/// Tokens of a completion where a request does not say how many: OpenAI's.
const COMPLETION_TOKENS: usize = 16;

/// A language model with what makes texts tokens.
pub struct Writer {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// A smaller model, and how many tokens it proposes at once.
    pub draft: Option<(Model, usize)>,
    /// Its template of chats, or why there is none.
    template: Result<ChatTemplate, String>,
    /// Grammars over its tokens, or why there are none; from the first request on that needs them.
    grammars: OnceLock<Result<Grammars, String>>,
    /// What its tokens are called; likewise.
    words: OnceLock<Arc<Words>>,
}

/// What is asked of a request's texts beside how they are chosen.
#[derive(Default)]
struct Asked {
    /// What they are held to.
    constraint: Option<Constraint>,
    /// How many of the likeliest tokens are told with each, where it is told how likely they were.
    likeliest: Option<usize>,
    /// The names of tools that may be called.
    tools: Option<Vec<String>>,
}

/// A request that the engine can take.
pub struct Prepared {
    /// The texts that it asks for.
    pub texts: Vec<Wanted>,
    /// What is answered.
    pub answer: Answer,
    /// True where the answer comes in pieces.
    pub stream: bool,
}

impl Writer {
    /// A model with its tokenizer, and its template of chats where there is one.
    ///
    /// # Errors
    /// When there is no tokenizer, or it does not fit the model; when this has an encoder, whose sources differ from request to request.
    pub fn new(model: Model) -> Result<Writer> {
        if model.encoder().is_some() {
            let message =
                "a model with an encoder and a decoder is not served: `brolga generate` and `transcribe` run it";
            return Err(Error::Option(message.into()));
        }
        Ok(Writer {
            tokenizer: Tokenizer::of(model.files(), model.facts().vocabulary)?,
            template: ChatTemplate::of(model.files()).map_err(|e| told(&e)),
            grammars: OnceLock::new(),
            words: OnceLock::new(),
            draft: None,
            model,
        })
    }

    /// The same with a smaller model that proposes so many tokens at once.
    ///
    /// # Errors
    /// As [`draft::check`].
    pub fn with_draft(self, draft: Model, most: usize) -> Result<Writer> {
        draft::check(&draft, &self.model, most)?;
        Ok(Writer {
            draft: Some((draft, most)),
            ..self
        })
    }

    /// Grammars over its tokens.
    fn grammars(&self, field: &str) -> Result<&Grammars, Refusal> {
        let of = || Grammars::of(&self.tokenizer, self.model.facts()).map_err(|e| told(&e));
        let grammars = self.grammars.get_or_init(of).as_ref();
        grammars.map_err(|message| Refusal::field(field, message))
    }

    fn constraint(&self, form: &forms::Form) -> Result<Constraint, Refusal> {
        let constraint = self.grammars(&form.field)?.constraint(&form.grammar);
        constraint.map_err(|e| Refusal::field(&form.field, told(&e)))
    }

    /// A request to go on from prompts.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn completion(&self, name: &str, mut fields: Fields) -> Result<Prepared, Refusal> {
        let prompt = fields.needed("prompt")?;
        let wishes = Wishes::take(&mut fields, self.model.facts(), Some(COMPLETION_TOKENS))?;
        let likeliest = logprobs::of_completion(&mut fields)?;
        let form = forms::form(&mut fields)?;
        fields.only("echo", &[json!(false)])?;
        fields.only("best_of", &[json!(1), json!(wishes.n)])?;
        fields.only("suffix", &[json!("")])?;
        fields.finish()?;
        let prompts = prompts::tokens(&self.tokenizer, "prompt", &prompt)?;
        let asked = Asked {
            constraint: form.map(|form| self.constraint(&form)).transpose()?,
            likeliest,
            tools: None,
        };
        self.prepared(Form::Completion, name, "prompt", prompts, wishes, asked)
    }

    /// A request to reply to a chat.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn chat(&self, name: &str, mut fields: Fields) -> Result<Prepared, Refusal> {
        let messages = fields.needed("messages")?;
        let wishes = Wishes::take(&mut fields, self.model.facts(), None)?;
        let likeliest = logprobs::of_chat(&mut fields)?;
        let form = forms::form(&mut fields)?;
        fields.only("modalities", &[json!(["text"])])?;
        let calling = Calling::take(&mut fields)?;
        let extra = fields.object("chat_template_kwargs")?.all();
        fields.finish()?;
        let messages = messages.as_array().filter(|all| !all.is_empty());
        let messages = messages.ok_or_else(|| Refusal::field("messages", "expected a list with a message or more"))?;
        if !messages.iter().all(|m| m["role"].is_string()) {
            return Err(Refusal::field("messages", "a message is an object with a role"));
        }
        let template = self.template.as_ref().map_err(Refusal::bad)?;
        let messages: Vec<Ordered> = messages.iter().map(Ordered::from).collect();
        let extra: Vec<(&str, Ordered)> = extra.iter().map(|(name, v)| (name.as_str(), v.into())).collect();
        let text = template.render_with(&messages, calling.json().map(Ordered::from).as_ref(), true, &extra);
        let text = text.map_err(|e| Refusal::field("messages", told(&e)))?;
        let prompt = self.tokenizer.encode(&text, false);
        let prompt = prompt.map_err(|e| Refusal::field("messages", told(&e)))?;
        let asked = Asked {
            constraint: self.held_to(form, &calling, template)?,
            likeliest,
            tools: calling.names(),
        };
        self.prepared(Form::Chat, name, "messages", vec![prompt], wishes, asked)
    }

    /// What a reply to a chat is held to: a call where that is a must, else its form, or calls beside it.
    fn held_to(
        &self,
        form: Option<forms::Form>,
        calling: &Calling,
        template: &ChatTemplate,
    ) -> Result<Option<Constraint>, Refusal> {
        let tools = calling.callable();
        // Alone it says where it is wrong.
        let held = form.as_ref().map(|form| self.constraint(form)).transpose()?;
        let answer = match form {
            None => None,
            _ if calling.is_must() || tools.is_empty() => None,
            Some(forms::Form {
                grammar: Grammar::Schema(schema),
                ..
            }) => Some(schema),
            Some(form) => {
                let message = "beside tools it can be JSON by a schema only; `tool_choice` may be `none`";
                return Err(Refusal::field(&form.field, message));
            }
        };
        if answer.is_none() && !calling.is_must() {
            calling.free()?;
            return Ok(held);
        }
        let style = Style::of(template, &self.tokenizer);
        let grammars = self.grammars("tools")?;
        let constraint = style.constraint(grammars, &tools, calling.several(), answer.as_ref());
        constraint.map(Some)
    }

    fn prepared(
        &self,
        form: Form,
        name: &str,
        field: &str,
        prompts: Vec<Vec<i64>>,
        wishes: Wishes,
        asked: Asked,
    ) -> Result<Prepared, Refusal> {
        let context = self.model.facts().context;
        for prompt in &prompts {
            self.model.check(prompt.len(), prompt).map_err(|e| Refusal {
                code: context.filter(|c| prompt.len() > *c).map(|_| "context_length_exceeded"),
                ..Refusal::field(field, told(&e))
            })?;
        }
        let lengths = prompts.iter().map(Vec::len).collect();
        let mut texts = vec![];
        for prompt in prompts {
            let prompt: Arc<[i64]> = prompt.into();
            texts.extend((0..wishes.n).map(|choice| Wanted {
                prompt: prompt.clone(),
                settings: wishes.settings(choice),
                constraint: asked.constraint.clone(),
                likeliest: asked.likeliest,
                stops: wishes.stops.clone(),
                goes_on: form == Form::Completion,
            }));
        }
        let words = || Arc::new(Words::of(&self.tokenizer, self.model.facts().vocabulary));
        let words = asked.likeliest.map(|_| self.words.get_or_init(words).clone());
        Ok(Prepared {
            texts,
            answer: Answer::new(form, name, lengths, wishes.n, asked.tools)
                .include_usage(wishes.include_usage)
                .logprobs(words),
            stream: wishes.stream,
        })
    }
}
