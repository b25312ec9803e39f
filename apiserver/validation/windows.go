package validation

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The limits of Windows' own names.
const (
	maxCredentialSpec = 64 * 1024
	maxUserDomain     = 256
	maxUser           = 104
	netBIOSName       = `^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`
	windowsDNSLabel   = `[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?`
)

func (c *podCheck) checkWindowsOptions(path *field.Path, w *corev1.WindowsSecurityContextOptions) {
	if w == nil {
		return
	}
	if w.GMSACredentialSpecName != nil {
		c.problems.check(path.Child("gmsaCredentialSpecName"), *w.GMSACredentialSpecName, validation.IsDNS1123Subdomain)
	}
	if s := w.GMSACredentialSpec; s != nil {
		at := path.Child("gmsaCredentialSpec")
		if *s == "" {
			c.invalid(at, *s, "gmsaCredentialSpec cannot be an empty string")
		} else if len(*s) > maxCredentialSpec {
			c.invalid(at, *s, "gmsaCredentialSpec size must be under 64 KiB")
		}
	}
	if w.RunAsUserName != nil {
		c.invalid(path.Child("runAsUserName"), *w.RunAsUserName, userName(*w.RunAsUserName)...)
	}
}

// userName judges DOMAIN\user or user.
func userName(name string) []string {
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case strings.ContainsFunc(name, func(r rune) bool { return r <= unicode.MaxASCII && unicode.IsControl(r) }):
		return []string{"runAsUserName cannot contain control characters"}
	case strings.Count(name, `\`) > 1:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	var complaints []string
	complain := func(when bool, text string) {
		if when {
			complaints = append(complaints, text)
		}
	}
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		domain, user = "", name
	}
	complain(len(domain) >= maxUserDomain, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxUserDomain))
	complain(hasDomain && !matches(netBIOSName, domain) && !matches(`^`+windowsDNSLabel+`(?:\.`+windowsDNSLabel+`)*$`, domain),
		"runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	complain(user == "", "runAsUserName's User cannot be empty")
	complain(len(user) > maxUser, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxUser))
	complain(user != "" && strings.Trim(user, ". ") == "", "runAsUserName's User cannot contain only periods or spaces")
	complain(strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`), `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	return complaints
}

func matches(pattern, s string) bool {
	ok, err := regexp.MatchString(pattern, s)
	return err == nil && ok
}

// checkWindowsHostProcess demands that all containers be host processes or none.
func (c *podCheck) checkWindowsHostProcess(path *field.Path) {
	var inherited *bool
	if s := c.spec.SecurityContext; s != nil && s.WindowsOptions != nil {
		inherited = s.WindowsOptions.HostProcess
	}
	all, host := 0, 0
	eachContainer(c.spec, path, func(ctr *corev1.Container, at *field.Path) {
		all++
		var own *bool
		if s := ctr.SecurityContext; s != nil && s.WindowsOptions != nil {
			own = s.WindowsOptions.HostProcess
		}
		if own != nil && inherited != nil && *own != *inherited {
			c.invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *inherited))
		}
		if own == nil {
			own = inherited
		}
		if deref(own) {
			host++
		}
	})
	if host == 0 {
		return
	}
	if host != all {
		c.invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !c.spec.HostNetwork {
		c.invalid(path.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}
