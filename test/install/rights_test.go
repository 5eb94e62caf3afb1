//go:build install

package install

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/lvs-operator/lvs-operator/controllers/director"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestRightsAreGolden pins every right that an installation hands out, and an
// uninstallation: a new one is a line in a review.
func TestRightsAreGolden(t *testing.T) {
	const golden = "testdata/rights.golden"
	got := rights(t, kustomize(t, "config/default")) + rights(t, kustomize(t, "config/uninstall"))
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("rights differ; with -update they become the golden ones (-want +got):\n%s", diff)
	}
}

// rights writes one line for each resource of each rule.
func rights(t *testing.T, rendered objects) string {
	t.Helper()
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(rendered)) {
		kind, _, _ := strings.Cut(key, "/")
		switch kind {
		case "ClusterRole":
			lines = append(lines, rules(key, typed[rbacv1.ClusterRole](t, rendered, key).Rules)...)
		case "Role":
			lines = append(lines, rules(key, typed[rbacv1.Role](t, rendered, key).Rules)...)
		case "ClusterRoleBinding":
			binding := typed[rbacv1.ClusterRoleBinding](t, rendered, key)
			lines = append(lines, bound(key, binding.RoleRef, binding.Subjects)...)
		case "RoleBinding":
			binding := typed[rbacv1.RoleBinding](t, rendered, key)
			lines = append(lines, bound(key, binding.RoleRef, binding.Subjects)...)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func rules(key string, rules []rbacv1.PolicyRule) []string {
	var lines []string
	for _, rule := range rules {
		for _, url := range rule.NonResourceURLs {
			lines = append(lines, fmt.Sprintf("%s: %s %s", key, strings.Join(rule.Verbs, ","), url))
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				line := fmt.Sprintf("%s: %s %s", key, strings.Join(rule.Verbs, ","), strings.TrimPrefix(group+"/"+resource, "/"))
				if len(rule.ResourceNames) > 0 {
					line += " named " + strings.Join(rule.ResourceNames, ",")
				}
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func bound(key string, role rbacv1.RoleRef, subjects []rbacv1.Subject) []string {
	var lines []string
	for _, subject := range subjects {
		lines = append(lines, fmt.Sprintf("%s: %s %s/%s is %s/%s", key, subject.Kind, subject.Namespace, subject.Name, role.Kind, role.Name))
	}
	return lines
}

// ownSecret are the rights to the one Secret that the operator has.
var ownSecret = []string{
	"Role/lvs-operator-director: get,list,watch secrets named " + director.KeysSecret,
	"Role/lvs-operator-director: create secrets",
}

// TestNoRightIsWild looks for what no program of ours may have, whatever the
// golden file says.
func TestNoRightIsWild(t *testing.T) {
	all := rights(t, kustomize(t, "config/default")) + rights(t, kustomize(t, "config/uninstall"))
	for _, line := range strings.Split(all, "\n") {
		if strings.Contains(line, "secrets") && !slices.Contains(ownSecret, line) {
			t.Errorf("%q is about a Secret that is not ours", line)
		}
		for _, word := range []string{"*", "escalate", "impersonate", " bind", "deletecollection", "pods/exec"} {
			if strings.Contains(line, word) {
				t.Errorf("%q has %q", line, word)
			}
		}
	}
}

// TestDirectorPod pins what a director's pod may do to its node.
func TestDirectorPod(t *testing.T) {
	set := typed[appsv1.DaemonSet](t, kustomize(t, "config/default"), "DaemonSet/lvs-operator-director")
	pod := set.Spec.Template.Spec
	if len(pod.InitContainers) != 0 || len(pod.Containers) != 1 {
		t.Fatalf("got %d and %d containers, want 1 and no init container", len(pod.Containers), len(pod.InitContainers))
	}
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Error("want the host's network, and neither its processes nor its IPC")
	}

	yes, no, user := true, false, int64(0)
	wantContext := &corev1.SecurityContext{
		RunAsUser:                &user,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
	}
	if diff := cmp.Diff(wantContext, pod.Containers[0].SecurityContext); diff != "" {
		t.Errorf("security context differs (-want +got):\n%s", diff)
	}
	if profile := pod.SecurityContext.SeccompProfile; profile == nil || profile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("seccomp profile %v, want RuntimeDefault", profile)
	}

	paths := map[string]corev1.HostPathType{}
	for _, volume := range pod.Volumes {
		if volume.HostPath == nil {
			t.Errorf("volume %s is no host path", volume.Name)
			continue
		}
		paths[volume.HostPath.Path] = *volume.HostPath.Type
	}
	wantPaths := map[string]corev1.HostPathType{
		"/proc/sys/net":     corev1.HostPathDirectory,
		"/run/lvs-operator": corev1.HostPathDirectoryOrCreate,
	}
	if diff := cmp.Diff(wantPaths, paths); diff != "" {
		t.Errorf("host paths differ (-want +got):\n%s", diff)
	}
	if _, limited := pod.Containers[0].Resources.Limits[corev1.ResourceCPU]; limited {
		t.Error("there is a CPU limit")
	}
	if rolling := set.Spec.UpdateStrategy.RollingUpdate; rolling.MaxSurge.IntValue() != 0 || rolling.MaxUnavailable.IntValue() != 1 {
		t.Errorf("rolling update %+v, want one director at a time and none beside another", rolling)
	}
}

// TestAgentPod pins what an agent's pod may do to its node.
func TestAgentPod(t *testing.T) {
	set := typed[appsv1.DaemonSet](t, kustomize(t, "config/default"), "DaemonSet/lvs-operator-realserver")
	pod := set.Spec.Template.Spec
	if len(pod.InitContainers) != 0 || len(pod.Containers) != 1 {
		t.Fatalf("got %d and %d containers, want 1 and no init container", len(pod.Containers), len(pod.InitContainers))
	}
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Error("want the host's network, and neither its processes nor its IPC")
	}

	yes, no, user := true, false, int64(0)
	wantContext := &corev1.SecurityContext{
		RunAsUser:                &user,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN", "SYS_ADMIN"}},
	}
	if diff := cmp.Diff(wantContext, pod.Containers[0].SecurityContext); diff != "" {
		t.Errorf("security context differs (-want +got):\n%s", diff)
	}
	if profile := pod.SecurityContext.SeccompProfile; profile == nil || profile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("seccomp profile %v, want RuntimeDefault", profile)
	}
	wantMounts := []string{
		"/run/containerd from /run/containerd (DirectoryOrCreate), read-only",
		"/run/crio from /run/crio (DirectoryOrCreate), read-only",
		"/run/netns from /run/netns (DirectoryOrCreate), read-only, HostToContainer",
		"/host/proc/sys/net from /proc/sys/net (Directory)",
		"/run/lvs-operator/agent from /run/lvs-operator/agent (DirectoryOrCreate)",
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(wantMounts)), mounts(pod)); diff != "" {
		t.Errorf("mounts differ (-want +got):\n%s", diff)
	}
	if _, limited := pod.Containers[0].Resources.Limits[corev1.ResourceCPU]; limited {
		t.Error("there is a CPU limit")
	}
	if surge := set.Spec.UpdateStrategy.RollingUpdate.MaxSurge; surge.IntValue() != 0 {
		t.Errorf("max surge %v, want no two agents on one node", surge)
	}
}

// mounts describes, in order, what the first container of a pod sees of its node.
func mounts(pod corev1.PodSpec) []string {
	from := map[string]string{}
	for _, volume := range pod.Volumes {
		if volume.HostPath != nil {
			from[volume.Name] = fmt.Sprintf("%s (%s)", volume.HostPath.Path, *volume.HostPath.Type)
		}
	}
	var found []string
	for _, mount := range pod.Containers[0].VolumeMounts {
		line := mount.MountPath + " from " + from[mount.Name]
		if mount.ReadOnly {
			line += ", read-only"
		}
		if mount.MountPropagation != nil {
			line += ", " + string(*mount.MountPropagation)
		}
		found = append(found, line)
	}
	slices.Sort(found)
	return found
}

// TestNamespaceAllowsDirectors shows that the namespace enforces a level that
// the pods can have.
func TestNamespaceAllowsDirectors(t *testing.T) {
	got := typed[corev1.Namespace](t, kustomize(t, "config/default"), "Namespace/"+namespace)
	if level := got.Labels["pod-security.kubernetes.io/enforce"]; level != "privileged" {
		t.Errorf("the namespace enforces %q, want privileged", level)
	}
}

// TestOtherBasesRender shows that the bases which are applied by themselves
// hold what they should.
func TestOtherBasesRender(t *testing.T) {
	for base, want := range map[string][]string{
		"config/crd":     {"CustomResourceDefinition"},
		"config/samples": {"Deployment", "DirectorPool", "Service", "VirtualServer"},
	} {
		kinds := map[string]bool{}
		for key := range kustomize(t, base) {
			kind, _, _ := strings.Cut(key, "/")
			kinds[kind] = true
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(kinds))); diff != "" {
			t.Errorf("kinds of %s differ (-want +got):\n%s", base, diff)
		}
	}
}
