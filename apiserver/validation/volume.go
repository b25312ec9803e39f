package validation

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	oneVolumeType  = "may not specify more than 1 volume type"
	badFileMode    = "must be a number between 0 and 0777 (octal), both inclusive"
	conflicting    = "conflicting duplicate paths"
	minTokenSecond = 10 * 60
	maxTokenSecond = 1 << 32
)

// checkVolumes validates the volumes and remembers the good ones, which
// containers may mount.
func (c *podCheck) checkVolumes(path *field.Path) {
	c.volumes = map[string]*corev1.VolumeSource{}
	made := map[string]bool{} // claims that the pod's ephemeral volumes make
	if c.meta != nil && c.meta.Name != "" {
		for i := range c.spec.Volumes {
			if v := &c.spec.Volumes[i]; v.Ephemeral != nil {
				made[c.meta.Name+"-"+v.Name] = true
			}
		}
	}
	for i := range c.spec.Volumes {
		at, v := path.Index(i), &c.spec.Volumes[i]
		before := len(c.list)
		c.checkVolumeSource(at, v)
		c.requireFormat(at.Child("name"), v.Name, validation.IsDNS1123Label)
		if c.volumes[v.Name] != nil {
			c.duplicate(at.Child("name"), v.Name)
		}
		if len(c.list) == before {
			c.volumes[v.Name] = &v.VolumeSource
		}
		if claim := v.PersistentVolumeClaim; claim != nil && made[claim.ClaimName] {
			c.invalid(at.Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume")
		}
	}
}

// sources walks the alternatives of a union in order and refuses all but the first.
type sources struct {
	*problems
	path  *field.Path
	found bool
}

func (s *sources) one(name string, set bool, check func(at *field.Path)) {
	switch {
	case !set:
	case s.found:
		s.forbidden(s.path.Child(name), oneVolumeType)
	default:
		s.found = true
		check(s.path.Child(name))
	}
}

func (c *podCheck) checkVolumeSource(path *field.Path, v *corev1.Volume) {
	s := &sources{problems: c.problems, path: path}
	s.one("emptyDir", v.EmptyDir != nil, func(at *field.Path) {
		if limit := v.EmptyDir.SizeLimit; limit != nil && limit.Cmp(resource.Quantity{}) < 0 {
			c.forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
		}
	})
	s.one("hostPath", v.HostPath != nil, func(at *field.Path) { hostPath(c.problems, at, v.HostPath) })
	c.checkOldSources(s, v)
	s.one("secret", v.Secret != nil, func(at *field.Path) {
		if v.Secret.SecretName == "" {
			c.required(at.Child("secretName"), "")
		}
		c.fileMode(at.Child("defaultMode"), v.Secret.DefaultMode)
		c.checkItems(at.Child("items"), v.Secret.Items)
	})
	c.checkNetworkSources(s, v)
	s.one("downwarAPI", v.DownwardAPI != nil, func(*field.Path) { // upstream has it both ways
		at := path.Child("downwardAPI")
		c.fileMode(at.Child("defaultMode"), v.DownwardAPI.DefaultMode)
		for i := range v.DownwardAPI.Items {
			c.checkDownwardFile(at, &v.DownwardAPI.Items[i])
		}
	})
	c.checkFibreAndFlex(s, v)
	s.one("configMap", v.ConfigMap != nil, func(at *field.Path) {
		if v.ConfigMap.Name == "" {
			c.required(at.Child("name"), "")
		}
		c.fileMode(at.Child("defaultMode"), v.ConfigMap.DefaultMode)
		c.checkItems(at.Child("items"), v.ConfigMap.Items)
	})
	c.checkVendorSources(s, v)
	s.one("projected", v.Projected != nil, func(at *field.Path) { c.checkProjected(at, v.Projected) })
	s.one("scaleIO", v.ScaleIO != nil, func(at *field.Path) {
		c.need(at, "gateway", v.ScaleIO.Gateway)
		c.need(at, "system", v.ScaleIO.System)
		c.need(at, "volumeName", v.ScaleIO.VolumeName)
	})
	s.one("csi", v.CSI != nil, func(at *field.Path) { c.checkCSI(at, v.CSI) })
	s.one("ephemeral", v.Ephemeral != nil, func(at *field.Path) { c.checkEphemeral(path, at, v) })
	s.one("image", v.Image != nil, func(at *field.Path) {
		if v.Image.Reference == "" && !c.kept.emptyImageReference {
			c.required(at.Child("reference"), "")
		}
		requireOneOf(c.problems, at.Child("pullPolicy"), v.Image.PullPolicy,
			corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	})
	if !s.found {
		c.required(path, "must specify a volume type")
	}
}

// need demands a string field.
func (p *problems) need(path *field.Path, name, value string) {
	if value == "" {
		p.required(path.Child(name), "")
	}
}

func (p *problems) fileMode(path *field.Path, mode *int32) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		p.invalid(path, *mode, badFileMode)
	}
}

func hostPath(p *problems, path *field.Path, h *corev1.HostPathVolumeSource) {
	if h.Path == "" {
		p.required(path.Child("path"), "")
		return
	}
	p.noBacksteps(path.Child("path"), h.Path)
	if h.Type != nil {
		oneOf(p, path.Child("type"), *h.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev,
			corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile,
			corev1.HostPathFileOrCreate, corev1.HostPathSocket)
	}
}

func (c *podCheck) checkItems(path *field.Path, items []corev1.KeyToPath) {
	for i := range items {
		at, item := path.Index(i), &items[i]
		c.need(at, "key", item.Key)
		c.need(at, "path", item.Path)
		c.unreserved(at.Child("path"), item.Path)
		c.fileMode(at.Child("mode"), item.Mode)
		c.userID(at.Child("user"), item.User)
	}
}

func (c *podCheck) checkDownwardFile(path *field.Path, f *corev1.DownwardAPIVolumeFile) {
	c.need(path, "path", f.Path)
	c.unreserved(path.Child("path"), f.Path)
	switch {
	case f.FieldRef != nil:
		c.checkFieldRef(path.Child("fieldRef"), f.FieldRef, fileFields())
		if f.ResourceFieldRef != nil {
			c.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case f.ResourceFieldRef != nil:
		c.checkResourceRef(path.Child("resourceFieldRef"), f.ResourceFieldRef, true)
	default:
		c.required(path, "one of fieldRef and resourceFieldRef is required")
	}
	c.fileMode(path.Child("mode"), f.Mode)
	c.userID(path.Child("user"), f.User)
}

// checkEphemeral validates a claim that is made with the pod; volume is the
// path of the volume, at that of the source.
func (c *podCheck) checkEphemeral(volume, at *field.Path, v *corev1.Volume) {
	if t := v.Ephemeral.VolumeClaimTemplate; t == nil {
		c.required(at.Child("volumeClaimTemplate"), "")
	} else {
		at = at.Child("volumeClaimTemplate")
		c.add(apimachinery.ValidateAnnotations(t.Annotations, at.Child("metadata", "annotations"))...)
		c.labels(at.Child("metadata", "labels"), t.Labels)
		claimTemplateMeta(c.problems, at.Child("metadata"), &t.ObjectMeta)
		claimSpec(c.problems, at.Child("spec"), &t.Spec, false)
	}
	if c.meta == nil || c.meta.Name == "" || v.Name == "" {
		return
	}
	claim := c.meta.Name + "-" + v.Name
	for _, complaint := range apimachinery.NameIsDNSSubdomain(claim, false) {
		c.invalid(volume.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", claim, complaint))
	}
}

// checkProjected validates several sources in one directory; two files may
// not have one path.
func (c *podCheck) checkProjected(path *field.Path, p *corev1.ProjectedVolumeSource) {
	c.fileMode(path.Child("defaultMode"), p.DefaultMode)
	taken := map[string]bool{}
	take := func(name string, shown string) {
		if name == "" {
			return
		}
		if taken[name] {
			c.invalid(path, shown, conflicting)
		}
		taken[name] = true
	}
	for i := range p.Sources {
		at, s, n := path.Child("sources").Index(i), &p.Sources[i], 0
		if s.Secret != nil {
			n++
			c.need(at.Child("secret"), "name", s.Secret.Name)
			c.checkItems(at.Child("secret", "items"), s.Secret.Items)
			for _, item := range s.Secret.Items {
				take(item.Path, s.Secret.Name)
			}
		}
		if s.ConfigMap != nil {
			n++
			c.need(at.Child("configMap"), "name", s.ConfigMap.Name)
			c.checkItems(at.Child("configMap", "items"), s.ConfigMap.Items)
			for _, item := range s.ConfigMap.Items {
				take(item.Path, s.ConfigMap.Name)
			}
		}
		if s.DownwardAPI != nil {
			n++
			for j := range s.DownwardAPI.Items {
				c.checkDownwardFile(at.Child("downwardAPI"), &s.DownwardAPI.Items[j])
				take(s.DownwardAPI.Items[j].Path, s.DownwardAPI.Items[j].Path)
			}
		}
		if s.ServiceAccountToken != nil {
			n++
			c.checkToken(path, at.Child("serviceAccountToken"), s.ServiceAccountToken)
		}
		if s.ClusterTrustBundle != nil {
			n++
			c.checkTrustBundle(at.Child("clusterTrustBundle"), s.ClusterTrustBundle)
			c.userID(at.Child("clusterTrustBundle", "user"), s.ClusterTrustBundle.User)
			take(s.ClusterTrustBundle.Path, s.ClusterTrustBundle.Path)
		}
		if s.PodCertificate != nil {
			n++
			c.userID(at.Child("podCertificate", "user"), s.PodCertificate.User)
			c.checkPodCertificate(at.Child("podCertificate"), s.PodCertificate, func(name string) { take(name, name) })
		}
		c.forbid(at, n > 1, "may not specify more than 1 volume type per source")
	}
}

// checkToken reports a token's path at the volume, as upstream does.
func (c *podCheck) checkToken(volume, path *field.Path, t *corev1.ServiceAccountTokenProjection) {
	c.userID(path.Child("user"), t.User)
	at := path.Child("expirationSeconds")
	switch seconds := t.ExpirationSeconds; {
	case seconds == nil:
		c.required(at, "")
	case *seconds < minTokenSecond:
		c.invalid(at, *seconds, "may not specify a duration less than 10 minutes")
	case *seconds > maxTokenSecond:
		c.invalid(at, *seconds, "may not specify a duration larger than 2^32 seconds")
	}
	if t.Path == "" {
		c.required(volume.Child("path"), "")
	} else if !c.kept.nonLocalTokenPath {
		c.unreserved(volume.Child("path"), t.Path)
	}
}
