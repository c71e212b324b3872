// Where lxcfs serves what containers see of /proc and /sys in the place of the kernel's own.
export const LXCFS = '/var/lib/lxcfs';
