package validation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

const maxMatchConditions = 64

// expressions compiles the CEL of policies and webhooks. The compiler is made
// when the first expression comes, because that is dear and most objects that
// are validated have none.
type expressions struct {
	*problems

	compiler plugincel.Compiler
	composed *plugincel.CompositedCompiler
	kept     []string
	params   bool
}

// keep remembers an expression of an older object: it may use what newer
// versions of the language no longer have.
func (e *expressions) keep(text string) { e.kept = append(e.kept, text) }

func (e *expressions) level(text string) environment.Type {
	if slices.Contains(e.kept, text) {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

// compose lets expressions use variables, which are to be declared first.
func (e *expressions) compose() {
	c, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err == nil {
		e.composed, e.compiler = c, c
	}
}

func (e *expressions) plain() plugincel.Compiler {
	return plugincel.NewCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
}

func (e *expressions) compile(at *field.Path, x plugincel.ExpressionAccessor, level environment.Type, vars plugincel.OptionalVariableDeclarations) {
	e.compileAs(at, x.GetExpression(), x, level, vars)
}

// compileAs is compile with the text as the user wrote it.
func (e *expressions) compileAs(at *field.Path, text string, x plugincel.ExpressionAccessor, level environment.Type,
	vars plugincel.OptionalVariableDeclarations,
) {
	if e.compiler == nil {
		e.compiler = e.plain()
	}
	if result := e.compiler.CompileCELExpression(x, vars, level); result.Error != nil {
		e.add(celError(at, text, result.Error))
	}
}

func celError(at *field.Path, text string, err error) *field.Error {
	var e *cel.Error
	if !errors.As(err, &e) {
		return field.InternalError(at, fmt.Errorf("unsupported error type: %w", err))
	}
	switch e.Type {
	case cel.ErrorTypeRequired:
		return field.Required(at, e.Detail)
	case cel.ErrorTypeInvalid:
		return field.Invalid(at, text, e.Detail)
	default:
		return field.InternalError(at, e)
	}
}

// conditions validates further conditions of webhooks and policies, which
// know no variables.
func (e *expressions) conditions(at *field.Path, list []admissionregistrationv1.MatchCondition, params bool) {
	if len(list) > maxMatchConditions {
		e.add(field.TooMany(at, len(list), maxMatchConditions))
	}
	own := &expressions{problems: e.problems, kept: e.kept}
	if e.composed == nil {
		own.compiler = e.compiler
	}
	seen := map[string]bool{}
	for i, c := range list {
		here := at.Index(i)
		if text := strings.TrimSpace(c.Expression); text == "" {
			e.required(here.Child("expression"), "")
		} else {
			own.compile(here.Child("expression"), &matchconditions.MatchCondition{Expression: text}, e.level(text),
				plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true})
		}
		if c.Name == "" {
			e.required(here.Child("name"), "")
			continue
		}
		e.check(here.Child("name"), c.Name, validation.IsQualifiedName)
		if seen[c.Name] {
			e.duplicate(here.Child("name"), c.Name)
		}
		seen[c.Name] = true
	}
	if e.composed == nil {
		e.compiler = own.compiler
	}
}

func (e *expressions) variables(at *field.Path, list []admissionregistrationv1.Variable) {
	for i, v := range list {
		here := at.Index(i)
		if strings.TrimSpace(v.Name) == "" {
			e.required(here.Child("name"), "name is not specified")
		} else if !celIdentifier(v.Name) {
			e.invalid(here.Child("name"), v.Name, "must be a valid CEL identifier")
		}
		if strings.TrimSpace(v.Expression) == "" {
			e.required(here.Child("expression"), "expression is not specified")
			continue
		}
		if e.composed == nil {
			e.add(field.InternalError(here, errors.New("variable composition is not allowed")))
			continue
		}
		x := &validating.Variable{Name: v.Name, Expression: v.Expression}
		result := e.composed.CompileAndStoreVariable(x, plugincel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: true}, e.level(v.Expression))
		if result.Error != nil {
			e.add(celError(here.Child("expression"), v.Expression, result.Error))
		}
	}
}

func celIdentifier(name string) bool {
	reserved := []string{
		"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
		"loop", "package", "namespace", "return", "var", "void", "while",
	}
	return matches("^[_a-zA-Z][_a-zA-Z0-9]*$", name) && !slices.Contains(reserved, name)
}

// patch validates the expression of a change.
func (e *expressions) patch(at *field.Path, text string, wrap func(text string) plugincel.ExpressionAccessor) {
	trimmed := strings.TrimSpace(text)
	if trimmed == "" {
		e.required(at.Child("expression"), "")
		return
	}
	e.compile(at.Child("expression"), wrap(trimmed), e.level(text),
		plugincel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: true, HasPatchTypes: true})
}

func applyExpression(text string) plugincel.ExpressionAccessor {
	return &patch.ApplyConfigurationCondition{Expression: text}
}

func jsonPatchExpression(text string) plugincel.ExpressionAccessor {
	return &patch.JSONPatchCondition{Expression: text}
}
