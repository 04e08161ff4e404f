// Fills in Go templates with Go itself, for scripts/templates: cases as JSON lines {"template", "messages", "tools", "suffix",
// "think"} on the input, {"text"} or {"error"} lines on the output. The data has the fields that section 5.12 of the contract
// names; as Go prints them, so must Lantern.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

type arguments map[string]any

func (a arguments) String() string { return asJSON(a) }

type calledFunction struct {
	Index     int       `json:"index"`
	Name      string    `json:"name"`
	Arguments arguments `json:"arguments"`
}

type toolCall struct {
	ID       string         `json:"id,omitempty"`
	Function calledFunction `json:"function"`
}

type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	Thinking   string     `json:"thinking,omitempty"`
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`
	ToolName   string     `json:"tool_name,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

// A type, or a list of types.
type types []string

func (t *types) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = types{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

func (t types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

func (t types) String() string {
	switch len(t) {
	case 0:
		return ""
	case 1:
		return t[0]
	}
	return fmt.Sprint([]string(t))
}

type property struct {
	AnyOf       []property          `json:"anyOf,omitempty"`
	Type        types               `json:"type,omitempty"`
	Items       any                 `json:"items,omitempty"`
	Description string              `json:"description,omitempty"`
	Enum        []any               `json:"enum,omitempty"`
	Properties  map[string]property `json:"properties,omitempty"`
	Required    []string            `json:"required,omitempty"`
}

type parameters struct {
	Type       string              `json:"type"`
	Defs       any                 `json:"$defs,omitempty"`
	Items      any                 `json:"items,omitempty"`
	Required   []string            `json:"required,omitempty"`
	Properties map[string]property `json:"properties"`
}

func (p parameters) String() string { return asJSON(p) }

type function struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Parameters  parameters `json:"parameters"`
}

func (f function) String() string { return asJSON(f) }

type tool struct {
	Type     string   `json:"type"`
	Function function `json:"function"`
}

func (t tool) String() string { return asJSON(t) }

type tools []tool

func (t tools) String() string { return asJSON(t) }

type oneCase struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
	Tools    tools     `json:"tools"`
	Prompt   string    `json:"prompt"`
	Suffix   string    `json:"suffix"`
	Think    *bool     `json:"think"`
}

// Neighbours of one role, but for results of tools, are one message.
func merged(messages []message) []*message {
	var all []*message
	for _, m := range messages {
		if n := len(all); n > 0 && all[n-1].Role == m.Role && m.Role != "tool" {
			all[n-1].Content += "\n\n" + m.Content
			continue
		}
		copied := m
		all = append(all, &copied)
	}
	return all
}

// Removes all that stands behind the first mention of the answer.
func cut(list *parse.ListNode, done *bool) {
	if list == nil {
		return
	}
	var kept []parse.Node
	for _, node := range list.Nodes {
		if *done {
			break
		}
		switch node := node.(type) {
		case *parse.IfNode:
			cut(node.List, done)
			cut(node.ElseList, done)
		case *parse.WithNode:
			cut(node.List, done)
			cut(node.ElseList, done)
		case *parse.RangeNode:
			cut(node.List, done)
			cut(node.ElseList, done)
		case *parse.ActionNode:
			for _, command := range node.Pipe.Cmds {
				for _, word := range command.Args {
					if field, ok := word.(*parse.FieldNode); ok && field.Ident[0] == "Response" {
						*done = true
					}
				}
			}
		}
		kept = append(kept, node)
	}
	list.Nodes = kept
}

func fill(c oneCase) (string, error) {
	source := c.Template
	if !strings.Contains(source, ".Messages") && !strings.Contains(source, ".Response") {
		source += "{{ .Response }}"
	}
	parsed, err := template.New("").Funcs(template.FuncMap{"json": asJSON}).Option("missingkey=zero").Parse(source)
	if err != nil {
		return "", err
	}
	messages := merged(c.Messages)
	var systems []string
	for _, m := range messages {
		if m.Role == "system" {
			systems = append(systems, m.Content)
		}
	}
	var out bytes.Buffer
	thinks, level := c.Think != nil && *c.Think, ""
	if thinks {
		level = "medium"
	}
	data := func(system, prompt, response string) map[string]any {
		return map[string]any{"System": system, "Prompt": prompt, "Response": response, "Suffix": c.Suffix, "Messages": messages,
			"Tools": c.Tools, "Think": thinks, "ThinkLevel": level, "IsThinkSet": c.Think != nil}
	}
	if c.Suffix != "" {
		err = parsed.Execute(&out, map[string]any{"Prompt": c.Prompt, "Suffix": c.Suffix, "Response": "", "Think": thinks,
			"ThinkLevel": level, "IsThinkSet": c.Think != nil})
		return out.String(), err
	}
	if strings.Contains(source, ".Messages") {
		err = parsed.Execute(&out, data(strings.Join(systems, "\n\n"), "", ""))
		return out.String(), err
	}
	var system, prompt, response string
	for _, m := range messages {
		if m.Role == "system" && (prompt != "" || response != "") || m.Role == "user" && response != "" {
			if err := parsed.Execute(&out, data(system, prompt, response)); err != nil {
				return "", err
			}
			system, prompt, response = "", "", ""
		}
		switch m.Role {
		case "system":
			system = m.Content
		case "user":
			prompt = m.Content
		case "assistant":
			response = m.Content
		}
	}
	err = last(parsed, &out, data(system, prompt, response))
	return out.String(), err
}

// Fills in a template up to where the answer goes.
func last(parsed *template.Template, out *bytes.Buffer, data map[string]any) error {
	tree := parsed.Tree.Copy()
	done := false
	cut(tree.Root, &done)
	short, err := parsed.AddParseTree("short", tree)
	if err != nil {
		return err
	}
	return short.Execute(out, data)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var c oneCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		text, err := fill(c)
		if err != nil {
			fmt.Println(asJSON(map[string]string{"error": err.Error()}))
		} else {
			fmt.Println(asJSON(map[string]string{"text": text}))
		}
	}
}
