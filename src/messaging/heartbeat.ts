// Notices a broker that went silent (section 1.2: heartbeat_timeout_threshold, heartbeat_rate).
import type { AmqpConnection } from './amqp.ts';
import type { RabbitOptions } from './options.ts';

/**
 * amqplib sends our heartbeats but gives a silent broker up to three intervals. RabbitMQ sends something at least every
 * half interval, so here a whole interval without a byte, seen by heartbeat_rate checks, is the end. Checks are
 * counted, not clocked: an event loop that was busy for long finds the bytes that came meanwhile before it gives up.
 */
export class Heartbeat {
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(connection: AmqpConnection, rabbit: RabbitOptions, onSilence: (error: Error) => void) {
    const { heartbeat_timeout_threshold: thresholdSeconds, heartbeat_rate: rate } = rabbit;
    if (thresholdSeconds === 0) return;
    let seen = -1;
    let silentChecks = 0;
    this.#timer = setInterval(
      () => {
        silentChecks = connection.bytesReceived === seen ? silentChecks + 1 : 0;
        seen = connection.bytesReceived;
        if (silentChecks <= rate) return;
        this.stop();
        onSilence(new Error(`the broker was silent for ${thresholdSeconds} s`));
        connection.destroy();
      },
      (thresholdSeconds * 1000) / rate,
    );
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
