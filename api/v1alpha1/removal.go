package v1alpha1

// AnnotationRemoval on a DirectorPool says that the installation whose directors
// are a certain DaemonSet is being removed: its value is that DaemonSet's UID. The
// directors of that DaemonSet, and no others, leave the pool and their nodes as
// they were found; those of a later installation pass over it. `director
// uninstall` sets it, and nobody takes it away.
const AnnotationRemoval = "lvs-operator.io/removal"
