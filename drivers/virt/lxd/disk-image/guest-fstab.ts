// /etc/fstab for a container: it has no disks to mount, and an init that waits for them does not come up.

/** Devices by name or label, that is what a virtual machine has and a container has not. */
const DEVICE = /^((PART)?(UUID|LABEL)=|\/dev\/|ID=)/i;

/** The lines that want a device, as comments; all others as they are. Text as latin1, so that no byte changes. */
export function containerFstab(content: string): string {
  return content
    .split('\n')
    .map((line) => {
      const [source = ''] = line.trimStart().split(/\s/);
      return DEVICE.test(source.replaceAll('"', '')) ? `# not in a container: ${line}` : line;
    })
    .join('\n');
}
