// One UDP datagram for a service of this host.
import { createSocket } from 'node:dgram';

export interface DatagramTarget {
  readonly address: string;
  readonly port: number;
}

/** Resolves when it has left: nobody answers. */
export async function sendDatagram({ address, port }: DatagramTarget, content: Uint8Array): Promise<void> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.send(content, port, address, (error) => (error ? reject(error) : resolve()));
    });
  } finally {
    socket.close();
  }
}
