// dnsmasq.pid: LXD's note about the dnsmasq of a network, which scripts read. YAML; its flow lists are JSON.

export function dnsmasqNote(pid: number, args: readonly string[]): string {
  return `name: dnsmasq\nargs: ${JSON.stringify(args)}\napparmor: ""\npid: ${pid}\n`;
}

/** Also of what dnsmasq itself writes, the bare number; 0 when there is none. */
export function notedPid(text: string): number {
  return Number(/^(?:pid: )?(\d+)$/m.exec(text)?.[1] ?? 0);
}
